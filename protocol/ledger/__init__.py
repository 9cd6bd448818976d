"""The rollout ledger on Redis: who works on which group, and what became of every one.

A group's life, and the structure that holds it:

    admitted ─▶ queued ───▶ leased ────▶ unread ─────▶ read ────▶ trained ─────▶ durable
                tasks       tasks         rollouts      rollouts   + `trained`    acknowledged
                (lag)       (pending)     (lag)         (pending)  (hash)         (counted)

At any point it may be dropped with a reason (counted). The accounts balance at every moment:

    admitted = trained + dropped(by reason) + outstanding,      trained = durable + not yet durable

where `outstanding` is not a difference but a count of the streams themselves. Credits: the learner
charges one at `admit`, and it is freed when the group is trained or dropped. Every change is one Lua
script, so that a `kill -9` falls between two states and never into one.

Invariants: a task is acknowledged exactly once, by the commit, drop or dead letter that wins; a rollout
is acknowledged only once a durable checkpoint contains its step; a script of the learner with an old
fence changes nothing.

One group admitted, leased, and committed twice: the twin is refused, and the accounts say

    {'admitted': 1, 'trained': 0, 'dropped': {}, 'outstanding': 1}
"""

from chorus.protocol.ledger.accounting import Accounts, LedgerLostError, lost, read_accounts
from chorus.protocol.ledger.generator import GeneratorLedger, Lease
from chorus.protocol.ledger.keys import Keys, entries_of
from chorus.protocol.ledger.learner import Entry, FencedError, IndexTakenError, LearnerLedger, Rollout, digest_of

__all__ = [
    "Accounts",
    "Entry",
    "FencedError",
    "GeneratorLedger",
    "IndexTakenError",
    "Keys",
    "LearnerLedger",
    "Lease",
    "LedgerLostError",
    "Rollout",
    "digest_of",
    "entries_of",
    "lost",
    "read_accounts",
]
