import pytest

from tests.support.audits import VARIANTS


@pytest.fixture(params=sorted(VARIANTS))
def audit(request):
    return VARIANTS[request.param]()
