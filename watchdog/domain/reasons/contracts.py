"""Reasons about the contract of an MCP server."""

from __future__ import annotations

from functools import partial

from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry

_finding_reason_entry = partial(ReasonEntry, ReasonCategory.RULE_FINDING_OTHER_THAN_OUTCOME)

_ACCEPTANCE_ADVICE = (
    "If the change is intended, accept it on the page of the probe, or with `watchdog contracts accept PROBE`: the "
    "incident ends with the next good runs."
)

CONTRACT_REASON_ENTRIES = (
    _finding_reason_entry(
        "mcp.contract_breaking",
        "Breaking change of tools",
        "The tools of an MCP server differ from those that were accepted, so that calls which were valid may be "
        "refused, or their results may lack what clients rely on. A change that is marked as not certain cannot be "
        "decided, such as another pattern.",
        f"Find out which clients use the tool. {_ACCEPTANCE_ADVICE}",
    ),
    _finding_reason_entry(
        "mcp.contract_changed",
        "Contract changed",
        "What an MCP server offers differs from what was accepted, but every call that was valid still is. Only probes "
        "with `drift: any` report this.",
        f"Read the changes on the page of the probe. {_ACCEPTANCE_ADVICE}",
    ),
    _finding_reason_entry(
        "mcp.suspicious_text",
        "Suspicious text of a tool",
        "A text that a model reads about a tool is new and may be an instruction to the model, such as to ignore other "
        "instructions, or to conceal something from the user. It may also hide characters. An attacker who controls a "
        "server can change its tools after people have allowed them.",
        "Read the text on the page of the probe, and find out who has changed it. Until then, let no model use the "
        f"server. {_ACCEPTANCE_ADVICE}",
    ),
    _finding_reason_entry(
        "mcp.downgraded",
        "Older version of MCP",
        "An MCP server answers with an older version of the protocol than before, and refuses the newer one.",
        f"Check whether an older version of the server was deployed. {_ACCEPTANCE_ADVICE}",
    ),
    _finding_reason_entry(
        "mcp.capability_lost",
        "Capability lost",
        "An MCP server no longer announces a capability that it had, such as `resources` or `tools.listChanged`.",
        f"Check the configuration of the server. {_ACCEPTANCE_ADVICE}",
    ),
    _finding_reason_entry(
        "mcp.renamed",
        "Server renamed",
        "An MCP server has another name than before: another server may answer at this address. Only probes with "
        "`drift: any` report this.",
        f"Check where the address leads. {_ACCEPTANCE_ADVICE}",
    ),
)
