"""The results: medians over the rounds, ratios to the first subject, Markdown, JSON, first targets."""

import statistics
from dataclasses import asdict, dataclass, field

from measure import IdleCost, Load, Run


@dataclass
class Case:
    """One load: the runs of each subject in the order in which they were made, and its system calls."""

    load: Load
    runs: dict[str, list[Run]] = field(default_factory=dict)
    system_calls: dict[str, float | None] = field(default_factory=dict)


@dataclass
class Results:
    subjects: list[str]
    description: dict[str, str]
    cases: list[Case] = field(default_factory=list)
    idle: dict[str, IdleCost] = field(default_factory=dict)


def median(case, subject, quantity):
    values = [getattr(run, quantity) for run in case.runs[subject]]
    return None if None in values else statistics.median(values)


def ratio(case, subject, baseline, quantity):
    """Median over the rounds of the quotient within a round: noise that lasts longer than a round cancels."""
    pairs = [
        (getattr(mine, quantity), getattr(theirs, quantity))
        for mine, theirs in zip(case.runs[subject], case.runs[baseline])
    ]
    if any(None in pair or not pair[1] for pair in pairs):
        return None
    return statistics.median(mine / theirs for mine, theirs in pairs)


def markdown(results):
    parts = ["# pgbench through the proxies, in turn", ""]
    parts += [f"- {key}: {value}" for key, value in results.description.items()]
    select = [case for case in results.cases if not case.load.churn]
    churn = [case for case in results.cases if case.load.churn]
    if select:
        parts += ["", "## Select only", "", *_select_table(results, select)]
    if churn:
        parts += ["", "## Connection churn (a SCRAM login for every SELECT)", "", *_churn_table(results, churn)]
    if results.idle:
        parts += ["", "## Idle clients", "", *_idle_table(results)]
    verdicts = targets(results)
    if verdicts:
        header = ["figure", "target", "measured", "met"]
        parts += ["", "## Targets", "", *_table(header, verdicts)]
    return "\n".join(parts) + "\n"


def _select_table(results, cases):
    baseline = results.subjects[0]
    header = ["case", "through", "CPU µs/tx", "min..max", f"÷ {baseline}", "calls/tx"]
    header += ["tx/s", "÷", "p50 ms", "÷", "p95 ms", "÷"]
    rows = []
    for case in cases:
        for subject in results.subjects:
            row = [case.load.name, subject, _text(median(case, subject, "cpu_us_per_transaction"), 1)]
            row += [_range(case, subject), _ratio(case, subject, baseline, "cpu_us_per_transaction")]
            row += [_text(case.system_calls.get(subject), 2)]
            for quantity, digits in (("transactions_per_second", 0), ("p50_ms", 3), ("p95_ms", 3)):
                row += [_text(median(case, subject, quantity), digits), _ratio(case, subject, baseline, quantity)]
            rows.append(row)
    return _table(header, rows)


def _churn_table(results, cases):
    header = ["case", "through", "CPU µs/login", "logins per CPU second", "logins/s"]
    rows = []
    for case in cases:
        for subject in results.subjects:
            cost = median(case, subject, "cpu_us_per_transaction")
            rate = _text(cost and 1e6 / cost, 0)
            seen = median(case, subject, "transactions_per_second")
            rows.append([case.load.name, subject, _text(cost, 1), rate, _text(seen, 0)])
    return _table(header, rows)


def _idle_table(results):
    header = ["through", "clients", "bytes each, logged in", "bytes each, after a query", "logins per CPU second"]
    rows = [
        [
            subject,
            str(idle.clients),
            _text(idle.bytes_after_login, 0),
            _text(idle.bytes_after_query, 0),
            _text(idle.logins_per_cpu_second, 0),
        ]
        for subject, idle in results.idle.items()
    ]
    return _table(header, rows)


def targets(results):
    """Rows of (figure, target, measured, yes or no) for Causeway, as far as they were measured."""
    if "causeway" not in results.subjects:
        return []
    rows = []

    def judge(figure, limit, measured, unit, at_least=False):
        if measured is None:
            return
        met = measured >= limit if at_least else measured <= limit
        sign = "≥" if at_least else "≤"
        rows.append([figure, f"{sign} {limit:g}{unit}", f"{measured:.2f}{unit}", "yes" if met else "NO"])

    for case in results.cases:
        load = case.load
        if "pgbouncer" in results.subjects and not load.churn:
            measured = ratio(case, "causeway", "pgbouncer", "cpu_us_per_transaction")
            judge(f"CPU per transaction, {load.name}", 1.3, measured, " × PgBouncer")
        if load.clients == 1 and not load.churn:
            judge(f"system calls per transaction, {load.name}", 6.5, case.system_calls.get("causeway"), "")
        if load.churn:
            cost = median(case, "causeway", "cpu_us_per_transaction")
            judge(f"logins per CPU second, {load.name}", 3000, 1e6 / cost, "", at_least=True)
    if "causeway" in results.idle:
        judge("resident bytes per idle client", 6144, results.idle["causeway"].bytes_after_query, "")
    return rows


def as_json(results):
    cases = [
        {
            "load": asdict(case.load),
            "runs": {subject: [asdict(run) for run in runs] for subject, runs in case.runs.items()},
            "system_calls_per_transaction": case.system_calls,
        }
        for case in results.cases
    ]
    return {
        "description": results.description,
        "subjects": results.subjects,
        "cases": cases,
        "idle": {subject: asdict(idle) for subject, idle in results.idle.items()},
        "targets": [dict(zip(("figure", "target", "measured", "met"), row)) for row in targets(results)],
    }


def _range(case, subject):
    values = [run.cpu_us_per_transaction for run in case.runs[subject]]
    return "" if None in values else f"{min(values):.1f}..{max(values):.1f}"


def _ratio(case, subject, baseline, quantity):
    return "" if subject == baseline else _text(ratio(case, subject, baseline, quantity), 2)


def _text(value, digits):
    return "" if value is None else f"{value:.{digits}f}"


def _table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
