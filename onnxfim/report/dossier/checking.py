"""Holds documents against their formats' own libraries, where these are installed (``pip install 'onnxfim[dossier]'``)."""

from __future__ import annotations

from importlib.metadata import version

#: What brings the libraries.
REMEDY = "pip install 'onnxfim[dossier]'"


class NotOfItsFormat(ValueError):
    """A document that its format's own library refuses: a defect of onnxfim."""


def checked_bom(text: str) -> str:
    """By what a CycloneDX document was held against its schema, in words; empty where the library is not installed.

    Raises:
        NotOfItsFormat: it does not fit.
    """
    try:
        from cyclonedx.exception import MissingOptionalDependencyException
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator
    except ImportError:
        return ""
    try:
        fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    except MissingOptionalDependencyException:
        return ""
    if fault is not None:
        raise NotOfItsFormat(f"the ML-BOM does not fit CycloneDX 1.6: {str(fault)[:300]}")
    return f"cyclonedx-python-lib {version('cyclonedx-python-lib')}"


def checked_statement(text: str) -> str:
    """By what an in-toto statement was read and validated, in words; empty where the library is not installed.

    Raises:
        NotOfItsFormat: it does not fit.
    """
    try:
        from google.protobuf import json_format
        from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
        from in_toto_attestation.v1 import statement_pb2
        from in_toto_attestation.v1.statement import Statement as InTotoStatement
    except ImportError:
        return ""
    try:
        read = json_format.Parse(text, statement_pb2.Statement())
        InTotoStatement.copy_from_pb(read).validate()
        json_format.ParseDict(json_format.MessageToDict(read.predicate), test_result_pb2.TestResult())
    except (json_format.ParseError, ValueError) as error:
        raise NotOfItsFormat(f"the statement does not fit in-toto's v1: {str(error)[:300]}") from error
    return f"in-toto-attestation {version('in-toto-attestation')}"
