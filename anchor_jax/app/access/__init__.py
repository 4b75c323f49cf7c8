"""Who may see and send what: cookies, uploads, origins, quotas, people's folders; nothing here runs a job."""
