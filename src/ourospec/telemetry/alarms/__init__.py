"""Red flags: rules that are fed the events of a run one after another and say when something goes wrong.

A false alarm costs more than a late one: whoever is warned for nothing stops reading. So each rule looks at means
over many steps, waits until what it sees has lasted, keeps silent where its numbers mean nothing (in warm-up, while
passes are forced, beside an illness that explains it) and speaks once an episode. docs/diagnose.md lists them.

The rules are the red flags of the Ouro-Spec documentation where those hold, and repaired where they do not; each
class says what was changed and why.
"""

from ourospec.telemetry.alarms.rule import Episode, Finding, Rule, Setting
from ourospec.telemetry.alarms.watch import RULES, Watch

__all__ = ["RULES", "Episode", "Finding", "Rule", "Setting", "Watch"]
