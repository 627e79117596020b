"""What stands below the help of each command: examples that work as they are."""

from __future__ import annotations

#: Below the help of the command itself.
EPILOG = """\
examples:
  sanitize run mine.csv --label y          sanitize a table; roles are inferred and printed
  sanitize run plan.toml                   the same from a plan
  sanitize verify sanitized/mine/releases/1.0.0
  sanitize explain mine ROW_ID
  sanitize attack mine.csv --poison flip-far --rate 0.1

exit status:
  0 published, or nothing to do    1 held: over the budget, or what --fail-on names
  2 the command or the plan is wrong    3 the input cannot be read, or is not intact
  4 a fault of sanitize    130, 143 stopped by Ctrl-C, by SIGTERM
"""

#: Below the help of each of its commands.
EXAMPLES = {
    "run": """\
examples:
  sanitize run mine.csv --label y
  sanitize run 'logs/*.jsonl.gz' --label class --time when --source sensor --ignore note
  sanitize run houses.parquet --target price --trusted checked.parquet --clean-loss 0.005
  sanitize run plan.toml --fail-on quarantine --json
  sanitize run landing/ --label y --grow       scan what came since the last release
""",
    "check": """\
example:
  sanitize check plan.toml
""",
    "status": """\
examples:
  sanitize status
  sanitize status mine --json
""",
    "serve": """\
example:
  sanitize serve plan.toml
  sanitize serve plans/*.toml --port 4300

A plan says when: [schedule] cron = "0 2 * * *", and [arrivals] to watch its source.
With PREFECT_API_URL the runs appear on that Prefect server, else on one of its own, on this
machine only, whose database lies in the store of the first plan.
""",
    "rule": """\
examples:
  sanitize rule mine 4f0c2b6a9d1e8c7705a3b1f2d4c6e8f0 keep --why "a real outlier, checked by phone"
  sanitize rule mine ROW_ID ROW_ID quarantine --why "the sensor was broken that day"
  sanitize rule mine ROW_ID none --why "I was wrong"
""",
    "publish": """\
examples:
  sanitize publish mine
  sanitize publish plan.toml --json
""",
    "compare": """\
example:
  sanitize compare sanitized/mine/releases/1.0.0 sanitized/mine/releases/1.1.0 --out changed.html
""",
    "history": """\
example:
  sanitize history mine
""",
    "export": """\
example:
  sanitize export mine --out rows.csv
""",
    "review": """\
examples:
  sanitize review mine
  sanitize review --users users.toml --add-user ann --role reviewer
  sanitize review --users users.toml --host 0.0.0.0 --name review.example.org \\
                  --certificate cert.pem --key key.pem

Without --users one person is let in, at this machine, by the address that is printed. With it,
viewers look, reviewers rule, and admins publish too.
""",
    "keygen": """\
example:
  sanitize keygen --store sanitized
""",
    "verify": """\
examples:
  sanitize verify sanitized/mine/releases/1.0.0
  sanitize verify downloads/mine-1.0.0 --key public.pem
  sanitize verify sanitized/mine/releases/1.0.0 --source mine.csv
""",
    "explain": """\
example:
  sanitize explain mine 4f0c2b6a9d1e8c7705a3b1f2d4c6e8f0
""",
    "attack": """\
examples:
  sanitize attack mine.csv --poison flip-far --rate 0.1 --seed 1 --label y
  sanitize attack houses.parquet --poison gradient --rate 0.08 --target price --out bad.parquet
""",
    "score": """\
examples:
  sanitize run mine.poisoned.csv --name war --label y
  sanitize score sanitized/war/releases/1.0.0 --truth mine.poisoned.truth.csv
  sanitize score RELEASE --truth mine.poisoned.truth.csv --before mine.csv --json
""",
    "list": """\
example:
  sanitize list
""",
}
