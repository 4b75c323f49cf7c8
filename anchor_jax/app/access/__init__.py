"""Who may see, send and store what: cookies, uploads, origins, quotas, people's folders. Nothing here runs a job."""
