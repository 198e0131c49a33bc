import pytest

from tests.audits import VARIANTS


@pytest.fixture(params=sorted(VARIANTS))
def audit(request):
    return VARIANTS[request.param]()
