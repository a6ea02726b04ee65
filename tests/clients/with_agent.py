"""Runs a command with a running agent described in its environment.

For the tests in other languages. Fails, too, when the agent kept a privilege, logged a secret or did not stop cleanly.
"""

import os
import subprocess
import sys

from harness.agent import Agent


def main():
    with Agent() as agent:
        described = {
            "AGENT_CLIENT": agent.client,
            "AGENT_MANAGER": agent.manager,
            "AGENT_MANAGER_SECRET": agent.manager_secret,
            "AGENT_TOKEN_SECRET": agent.token_secret,
        }
        code = subprocess.run(sys.argv[1:], env={**os.environ, **described}).returncode
        findings = agent.privileges() + agent.leaks()
        stopped = agent.stop()
    if stopped != 0:
        findings.append(f"the agent's exit code after SIGTERM: {stopped}")
    for finding in findings:
        print(f"with_agent: {finding}", file=sys.stderr)
    return code or bool(findings)


sys.exit(main())
