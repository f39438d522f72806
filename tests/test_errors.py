"""Errors: four parts in one line, pickled whole, without credentials and control characters."""

from __future__ import annotations

import pickle
import re

import pytest

from canopy.errors import (
    CanopyError,
    ClusterError,
    ConfigError,
    DataError,
    FleetError,
    FourPartError,
    InfrastructureError,
    InputError,
    PredictionsError,
    RunDirError,
    StageError,
    Stopped,
    StorageError,
    nearest,
    printable,
    refuse_credentials,
    refuse_secret_arguments,
    without_credentials,
)

FOUR_PARTS = [InputError, ConfigError, DataError, PredictionsError, RunDirError, StorageError, ClusterError]

SECRETS = {
    "user information": "s3://AKIAPLANTED:planted@bucket/x",
    "a secret with a slash": "s3://AKIAPLANTED:pla/planted@bucket/x",
    "a key alone": "s3://planted@bucket/x",
    "access_key": "s3://bucket/x?access_key=planted",
    "secret_key": "s3://bucket/x?region=eu-west-1&secret_key=planted",
    "session_token": "s3://bucket/x?session_token=planted",
    "in an endpoint": "s3://bucket/x?endpoint_override=http://user:planted@host:9000",
    "in an encoded endpoint": "s3://bucket/x?endpoint_override=http%3A%2F%2Fuser%3Aplanted%40host%3A9000",
    "percent-encoded": "s3://bucket/x?secret%5Fkey=planted",
    "token": "https://host/x?token=planted",
    "api_key": "https://host/x?api_key=planted",
    "apikey": "https://host/x?a=1&apikey=planted",
    "sig of a SAS token": "https://account.blob.core.windows.net/c/x?sv=2024&sig=planted%2B",
    "X-Amz-Signature": "https://bucket.s3.amazonaws.com/x?X-Amz-Date=1&X-Amz-Signature=planted",
    "X-Amz-Credential": "https://bucket.s3.amazonaws.com/x?X-Amz-Credential=planted/2026/s3",
    "X-Amz-Security-Token": "https://bucket.s3.amazonaws.com/x?X-Amz-Security-Token=planted",
    "X-Goog-Signature": "https://storage.googleapis.com/b/x?X-Goog-Signature=planted",
    "password": "https://host/x?password=planted",
    "MLflow's password": "https://user:planted@mlflow.example.org/",
    "account key": "abfs://container@account.dfs.core.windows.net/x?account_key=planted",
    "a password beside an account": "abfs://account:planted@container/x",
}

PUBLIC = [
    "s3://bucket/runs?region=eu-west-1&endpoint_override=localhost:9000&scheme=http",
    "s3://bucket/a@b/c",
    "s3://bucket/tokens/password=1.jpg",
    "gs://anonymous@bucket/x",
    "abfs://container@account.dfs.core.windows.net/x",
    "hdfs://host:8020/user@x/y",
    "http://127.0.0.1:5000",
    "/data/what?token=x",
    "relative/a@b",
]


@pytest.mark.parametrize("kind", FOUR_PARTS)
def test_the_four_parts_survive_pickling(kind: type[FourPartError]) -> None:
    error = pickle.loads(pickle.dumps(kind("data.root", "must be a directory", None, "Give one.")))
    assert type(error) is kind
    assert str(error) == "data.root must be a directory. Got: None. Give one."
    assert (error.thing, error.constraint, error.got, error.remedy) == error.args


def test_each_branch_is_a_built_in_kind_of_its_own() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(StorageError, OSError)
    assert issubclass(ClusterError, RuntimeError)
    assert not issubclass(InfrastructureError, InputError | ValueError)
    assert StorageError("s3://bucket", "must be reachable", 5, "Wait.").errno is None  # 5 is no error number


def test_an_exception_as_the_received_value_becomes_one_line() -> None:
    error = DataError("train.csv", "must be a table", OSError("first\n  second"), "Correct it.")
    assert str(pickle.loads(pickle.dumps(error))) == (
        "train.csv must be a table. Got: first second. Correct it."
    )


def test_a_sentence_as_the_received_value_keeps_one_full_stop() -> None:
    error = DataError("a.parquet", "must be a table", OSError("No footer. It may be cut."), "Correct it.")
    assert str(error) == "a.parquet must be a table. Got: No footer. It may be cut. Correct it."
    assert str(DataError("data.root", "must exist", "..", "Correct it.")).endswith("Got: ... Correct it.")


def test_exit_statuses() -> None:
    assert InputError.exit_status == RunDirError.exit_status == 2
    assert StageError.exit_status == FleetError.exit_status == 1
    assert StorageError.exit_status == ClusterError.exit_status == CanopyError.exit_status == 1
    assert Stopped(15, "nothing was running").exit_status == 143


@pytest.mark.parametrize("address", SECRETS.values(), ids=SECRETS)
def test_credentials_in_an_address_are_refused_and_masked(address: str) -> None:
    with pytest.raises(InputError, match=r"data\.root must not hold credentials.*environment") as error:
        refuse_credentials("data.root", address)
    assert "planted" not in str(error.value).lower()
    assert "planted" not in without_credentials(f"cannot read {address} now").lower()


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_without_credentials_is_accepted(address: str) -> None:
    refuse_credentials("data.root", address)


def test_the_public_parts_of_an_address_stay() -> None:
    assert without_credentials("s3://k:s@bucket/x?region=eu&secret_key=s then") == (
        "s3://bucket/x?region=eu&secret_key=*** then"
    )
    azure = "abfs://container@account.dfs.core.windows.net/x"
    assert without_credentials(azure) == azure


@pytest.mark.parametrize(
    "text", ["{'password': 'planted'}", '{"api_key":"planted"}', "{'data': {'secret_key': planted}}"]
)
def test_secrets_in_the_text_of_a_mapping_are_masked(text: str) -> None:
    masked = without_credentials(f"Got: {text}.")
    assert "planted" not in masked
    assert re.search("(password|api_key|secret_key)['\"]: ?\\*\\*\\*}", masked)


def test_arguments_with_secrets_are_refused_by_the_name_of_the_option() -> None:
    refuse_secret_arguments(["--data.root", "s3://b/x?region=eu", "--folds=2", "--dry-run", "a=s3://b/y.npz"])
    cases = {
        ("--folds", "2", "--data.rot", "s3://k:planted@b"): "--data.rot must not hold credentials",
        ("--fitting", "a=s3://b/x?sig=planted"): r"--fitting must .*sig=\*\*\*\. .*AWS_ACCESS_KEY_ID",
        ("s3://planted@b/run",): "The command line must not hold credentials",
        ("--tracking.mlflow-password", "planted"): r"--tracking\.mlflow-password must not be given",
        ("--API_KEY=planted",): "--API_KEY must not be given",
    }
    for argv, message in cases.items():
        with pytest.raises(InputError, match=message) as error:
            refuse_secret_arguments(argv)
        assert "planted" not in str(error.value)


def test_control_characters_are_escaped() -> None:
    assert printable("a\nb\r\x1b[31mc\x00\x85\u2028") == r"a\nb\r\x1b[31mc\x00\x85\u2028"
    assert printable("left\u202eright") == r"left\u202eright"
    assert printable("ü 😀 a\u00a0b 日本 \\n") == "ü 😀 a\u00a0b 日本 \\n"
    assert str(DataError("a\nerror: forged", "must be one line", "\x1b[2J", "Rename it.")) == (
        r"a\nerror: forged must be one line. Got: \x1b[2J. Rename it."
    )


def test_every_error_is_one_line_without_secrets() -> None:
    error = StageError("variant a\nb: cannot write to s3://k:planted@bucket/x")
    assert str(error) == r"variant a\nb: cannot write to s3://bucket/x"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(Stopped(15, "a\nb is kept")).startswith(r"stopped (SIGTERM); a\nb is kept.")


def test_the_nearest_names() -> None:
    assert nearest("watr", ["clear", "water", "road"]) == "Nearest: water."
    assert nearest("xyz", ["clear", "water"]) == "Known: clear, water."
