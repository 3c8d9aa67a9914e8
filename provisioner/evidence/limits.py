"""What a statement does not prove: one table of fixed codes, each with a few words and a sentence.

The codes go into the signed statement, the sentences into what people read. A code is only ever added, and a
statement that holds more of them claims less, so an older reader that does not know one cannot be misled by that.
"""

from __future__ import annotations

LIMITS: dict[str, tuple[str, str]] = {
    "account-not-recorded": ("which account it was", "The account and the identity that made the calls are not recorded."),
    "baseline-incomplete": (
        "untagged leftovers of some kinds",
        "Before the launch and after the end everything was listed, whosever it is, but not all kinds could be: the others' untagged "
        "leftovers would not have been seen.",
    ),
    "class-unchecked": (
        "kinds that could not be listed",
        "Some kinds of resource could not be listed; the table of sweeps names them with the reason.",
    ),
    "client-observed": (
        "that the client did not lie while it ran",
        "That a launch and a termination were accepted is AWS's record; what was seen afterwards (terminated, nothing left) is the word "
        "of the program that ran.",
    ),
    "client-signed-only": (
        "that the client did not lie while it ran",
        "All of this is the testimony of the program that ran, signed with its user's key, who could have made it say something else.",
    ),
    "clock-was-set": ("exact times", "The local clock was set back while the run went on; times taken from it alone may be off."),
    "cost-open": (
        "what it will have cost in the end",
        "The journal does not say when something began or ended to be billed: the cost has no upper bound.",
    ),
    "cost-unpriced": (
        "the price of everything that ran",
        "Something ran for which the journal holds no price: the cost has no upper bound.",
    ),
    "digest-gap": (
        "that nothing is missing from AWS's log",
        "The chain of CloudTrail's digests does not cover the whole run: nothing that AWS signed covers the rest of the time.",
    ),
    "guard-failed": ("that every guard held", "A guard could not be armed or read back; the table of guards names it."),
    "guard-waived": ("what a waived guard would have caught", "The profile waived a guard; the table of guards names it."),
    "guards-not-drilled": (
        "that the guards would have fired",
        "The guards were armed, and read back where it says so; they were not made to fire in this run.",
    ),
    "host-not-ours": (
        "that the machine is off, or what it costs",
        "The machine was rented by somebody else. This run stopped what it had started there, and cannot stop the machine or its bill.",
    ),
    "identity-is-static": (
        "that a machine ran after its identity document was made",
        "The identity documents are AWS's word for the moment at which each machine was begun; they say nothing of what came after.",
    ),
    "identity-unchecked": (
        "whose word the identity documents are",
        "There are identity documents; whoever made this proof could not check AWS's signature on them, and claims nothing by them.",
    ),
    "journal-elsewhere": (
        "what the lease had asked for",
        "The lease's own journal is on another machine. Only what carried the lease's tag when it was looked for is known here.",
    ),
    "journal-rebuilt": (
        "what a damaged journal had known",
        "An earlier journal of this lease was damaged and begun anew; what it alone knew is lost.",
    ),
    "list-price-only": (
        "discounts, credits and tax",
        "Amounts are public list prices times observed time: discounts, credits, commitments and tax are not in them.",
    ),
    "listed-classes-only": ("classes outside the list", "Only the kinds of resource in the table of sweeps were looked for."),
    "listed-regions-only": ("other regions", "Only the regions in the table of sweeps were looked at."),
    "local-clock": ("the provider's time", "No answer with the provider's own time was kept: all times are the local clock's."),
    "lost-answer": (
        "what came of a create whose answer was lost",
        "The answer to a create was lost. Nothing of it was listed for as long as the provider may need to list it: taken as not made.",
    ),
    "never-launched": ("any machine", "Nothing was ever asked for: there is no machine whose end could be shown."),
    "new-unexplained": (
        "whose the new things are",
        "Something is there that was not there before the launch and carries no tag of this run. It may be somebody else's, and was "
        "left alone.",
    ),
    "no-baseline": (
        "untagged leftovers",
        "Resources were looked for by this run's tag and by known ids; an untagged one would not have been seen.",
    ),
    "no-cloudtrail": (
        "what the provider's own log says",
        "The provider's audit log was not consulted; the request ids are the keys to it.",
    ),
    "no-identity-document": (
        "the provider's word that the machine existed",
        "No identity document signed by the provider was collected for every machine.",
    ),
    "no-outcome": ("how the run ended", "The journal does not say how the run went."),
    "no-verdict": ("that anybody looked at the end", "The journal holds no verdict: the run may not be over."),
    "not-billed-figures": ("the bill", "No billing data were consulted."),
    "not-quiet-long-enough": (
        "that nothing came later",
        "Nothing was found, and the looks were not far enough apart to rule out something late.",
    ),
    "not-sealed": ("that the journal was closed", "The journal was not sealed: its owner may have gone on writing it."),
    "open-intent": (
        "what came of an open create",
        "A create has no known outcome and was not waited out: something may exist because of it.",
    ),
    "owner-died": ("what happened between two owners", "The program that began this lease ended without finishing it; another one let go."),
    "records-are-copies": (
        "that CloudTrail's records are unchanged",
        "The records of CloudTrail in this bundle are copies that its maker could edit; whoever may read the account can ask AWS for them "
        "again, by their request ids.",
    ),
    "records-incomplete": (
        "what AWS recorded of every call",
        "CloudTrail's records in this bundle do not hold every launch, termination and last call of this run, or not in full.",
    ),
    "resource-not-gone": ("that everything is gone", "Something of this lease was not seen gone; the table of resources names it."),
    "simulated": (
        "anything about a real machine",
        "SIMULATED. This was a rehearsal on the user's own computer: no cloud was called and nothing was billed.",
    ),
    "sweeps-omitted": ("every look that was taken", "There were more sweeps than are listed here; the journal has all of them."),
    "too-few-sweeps": ("two complete looks", "There were not two complete looks, one after the other, that found nothing."),
    "torn-tail": ("what a crash cut off", "A crash left half a line in the journal; it was cut off and its digest kept."),
}


def words(code: str) -> str:
    """What is not shown, in a few words."""
    return LIMITS[code][0] if code in LIMITS else f"({code}, which this version does not know)"


def sentence(code: str) -> str:
    return LIMITS[code][1] if code in LIMITS else f"{code}: this version does not know this limit."
