"""Lints the shell scripts, Dockerfile, YAML, Kubernetes manifests and workflows, as part of `make check`.

Shell scripts and the ```bash blocks of launch/README.md go through shellcheck, the Dockerfile through hadolint, YAML
through yamllint, and Kubernetes objects, including the jobs in a JobSet, are validated against the API's schemas.
"""

import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from typing import Any

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "launch"
WORKFLOWS = ROOT / ".github" / "workflows"
# What each workflow may run: our own targets, which install everything else.
WORKFLOW_COMMANDS = {"ci.yml": [".ci/run"], "nightly.yml": ["make test-slow", "make parity"]}
YAML = (LAUNCH, ROOT / ".github", ROOT / ".pre-commit-config.yaml")
BIN = pathlib.Path(sys.executable).parent
# No validator has JobSet's schema, because it is not part of Kubernetes: the fields that a manifest may use.
JOBSET_FIELDS = {"replicatedJobs", "failurePolicy", "successPolicy", "network", "ttlSecondsAfterFinished", "suspend"}
REPLICATED_JOB_FIELDS = {"name", "replicas", "template"}


def tool(name: str, *arguments: str | pathlib.Path) -> bool:
  """Runs a checker from the repository's root; True if it found nothing or is not installed."""
  executable = BIN / name if (BIN / name).exists() else shutil.which(name)
  if executable is None:
    print(f"skipped: {name} has no build for this platform")
    return True
  return subprocess.run([executable, *arguments], cwd=ROOT, check=False).returncode == 0


def check_shell() -> bool:
  """True if shellcheck finds nothing in the scripts, and in the ```bash blocks of launch/README.md as one script."""
  scripts = [
    *LAUNCH.glob("*.sh"),
    *LAUNCH.glob("*.sbatch"),
    ROOT / ".ci/run",
    ROOT / ".ci/test-machines",
    ROOT / ".ci/test-wheel",
    ROOT / "requirements/lock.sh",
  ]
  blocks = re.findall(
    r"^```bash\n(.*?)^```", (LAUNCH / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
  )
  with tempfile.NamedTemporaryFile("w", suffix=".sh", prefix="README-blocks-") as script:
    script.write("#!/usr/bin/env bash\n# shellcheck disable=SC2164,SC2103\n" + "\n".join(blocks))
    script.flush()
    return tool("shellcheck", "--shell=bash", *scripts, script.name)


def problems_of_jobset(jobset: dict[str, Any]) -> list[str]:
  """Messages about unknown fields of a JobSet; its jobs are validated separately."""
  spec = jobset.get("spec", {})
  unknown = [f"spec.{field}" for field in spec.keys() - JOBSET_FIELDS]
  for job in spec.get("replicatedJobs", []):
    unknown += [f"spec.replicatedJobs.{field}" for field in job.keys() - REPLICATED_JOB_FIELDS]
  return [f"unknown field {field}" for field in unknown] or ([] if spec.get("replicatedJobs") else ["no jobs"])


def check_kubernetes() -> bool:
  """True if every object of every manifest is valid under the newest schemas, without unknown fields."""
  if importlib.util.find_spec("kubernetes_validate") is None:
    print("skipped: kubernetes-validate is not installed")
    return True
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import kubernetes_validate

  problems = []
  for path in LAUNCH.glob("*.yaml"):
    for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8")):
      objects = [manifest]
      if manifest.get("kind") == "JobSet":
        problems += [f"{path.name}: {problem}" for problem in problems_of_jobset(manifest)]
        objects = [
          {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, **job["template"]}
          for job in manifest["spec"]["replicatedJobs"]
        ]
      for item in objects:
        try:
          kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
          where = "/".join(str(part) for part in error.absolute_path)
          problems.append(f"{path.name}: {item['kind']}/{where}: {error.message}")
  for problem in problems:
    print(problem)
  return not problems


def check_workflows() -> bool:
  """True if workflows run only `WORKFLOW_COMMANDS`, and pre-commit hooks only `make check`."""
  problems = []
  for path in sorted(WORKFLOWS.glob("*.yml")):
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    if commands != (expected := WORKFLOW_COMMANDS.get(path.name)):
      problems.append(f"{path.name}: runs {commands}, not {expected}")
  for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]:
    entries = [hook["entry"] for hook in repository["hooks"]]
    if repository["repo"] != "local" or entries != ["make check"]:
      problems.append(f".pre-commit-config.yaml: {repository['repo']} runs {entries}: it must run only `make check`")
  for problem in problems:
    print(problem)
  return not problems


def main() -> int:
  """Runs every check and prints a summary; returns 1 if one failed."""
  results = {
    "shell": check_shell(),
    "Dockerfile": tool("hadolint", LAUNCH / "Dockerfile"),
    "YAML": tool("yamllint", "--strict", "-d", "{extends: default, rules: {line-length: {max: 120}}}", *YAML),
    "workflows": check_workflows(),
    "Kubernetes": check_kubernetes(),
  }
  print("launch files: " + ", ".join(f"{name} {'ok' if good else 'FAILED'}" for name, good in results.items()))
  return 0 if all(results.values()) else 1


if __name__ == "__main__":
  sys.exit(main())
