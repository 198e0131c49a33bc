import pytest

from tests.audits import BOUNDS, VARIANTS

ALL = {**VARIANTS, **BOUNDS}


@pytest.fixture(params=sorted(ALL))
def audit(request):
    return ALL[request.param]()
