"""Request ids are short, so now and then a fresh one is somebody's already."""

from dataclasses import replace

from access.audit import Kind
from access.model import Submission
from access.ports import Store
from access.service.desk import Caller
from access.service.filing import Submitted
from access.service.submitting import Submitting
from tests.values import ANA
from tests.world import World


def test_a_taken_id_stays_with_its_request_and_the_next_is_tried(store: Store) -> None:
    world = World(store)
    first = world.submit()
    candidates = iter([first.id, first.id, "AR-FREE"])
    submitting = Submitting(replace(world.desk, request_id=lambda _: next(candidates)))
    filed = submitting.submit(Caller(slack_user=ANA, delivery="one"), Submission(servers=("db-2",), reason="INC-2"))
    assert isinstance(filed, Submitted)
    assert filed.request.id == "AR-FREE"
    assert world.standing(first.id).request == first
    assert world.kinds("AR-FREE") == [Kind.REQUEST_SUBMITTED]
