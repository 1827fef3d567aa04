"""Options of the training of a family, without heavy imports."""

from dataclasses import dataclass
from typing import Literal, get_args

from kdnas.distill.options import StudentOptions
from kdnas.errors import UsageError

Schedule = Literal["k-per-pass", "one", "large-to-small", "sandwich"]
Objective = Literal["hidden-states", "relations"]


@dataclass(frozen=True)
class FamilyOptions(StudentOptions):
    """Options of the training of a family. Updates, tokens and learning rates count for the whole net, not for one member.

    Args:
        member_schedule: members of an update: `k-per-pass` trains several random members on each batch, with an update after
            each, and runs the teacher once for all; `one` trains one random member a batch; `large-to-small` trains all in
            turn, from large to small; `sandwich` adds up the gradients of the largest, the smallest and two random members, as
            published.
        members_per_pass: members on each batch with the schedule `k-per-pass`.
        objective: what members learn: the teacher's `hidden-states` (Eq. 1, divided by the teacher's variance), or the
            `relations` of one teacher layer, in the member's last layer.
        mapping: which teacher layers each layer of a member learns from (Eq. 2).
    """

    member_schedule: Schedule = "k-per-pass"
    members_per_pass: int = 4
    objective: Objective = "hidden-states"
    mapping: Literal["last-1", "last", "uniform", "uniform+last"] = "uniform+last"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.member_schedule not in get_args(Schedule):
            raise UsageError(
                f"member_schedule is '{self.member_schedule}'; allowed are {', '.join(get_args(Schedule))}"
            )
        if self.objective not in get_args(Objective):
            raise UsageError(f"objective is '{self.objective}'; allowed are {', '.join(get_args(Objective))}")
        if self.members_per_pass < 1:
            raise UsageError(f"members_per_pass is {self.members_per_pass}; it must be at least 1")
