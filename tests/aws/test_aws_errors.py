"""What each answer of AWS says about the world. The dangerous mistake is to call an unknown a refusal."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError
from conftest import Wire, forget_clients

from provisioner.errors import NoCapacity, NotCreated, NotPermitted, ProviderError, RefusedError
from provisioner.model import LaunchSpec, Phase, Resource
from provisioner.providers.aws import AwsProvider
from provisioner.providers.aws_errors import fault

LEASE = "r-20261121t140000z-abcdefgh"
GROUP = {"security-group": Resource("security-group", "sg-1", Phase.HERE)}


def launch(provider: AwsProvider, spec: LaunchSpec) -> Resource:
    return provider.create("instance", spec, lease=LEASE, token="t", made=GROUP)


REFUSALS = [
    "500 InsufficientInstanceCapacity",
    "400 VcpuLimitExceeded",
    "400 InvalidAMIID.NotFound",
    "400 InvalidAMIID.Malformed",
    "400 InvalidParameterValue",
    "400 InvalidParameterCombination",
    "400 InvalidBlockDeviceMapping",
    "400 InvalidGroup.NotFound",
    "400 InvalidSubnetID.NotFound",
    "400 Unsupported",
    "400 MaxSpotInstanceCountExceeded",
    "400 PendingVerification",
    "401 AuthFailure",
    "400 RequestExpired",
    "400 ExpiredToken",
]
UNKNOWNS = [
    "500 InternalError",
    "503 Unavailable",
    "503 ServiceUnavailable",
    "503 RequestLimitExceeded",
    "400 Throttling",
    "400 IdempotentParameterMismatch",
    "400 IdempotentInstanceTerminated",
    "400 InvalidInstanceID.NotFound",
    "400 SomethingNewFromNextYear",
    "html",
    "drop",
    "lose",
]


def test_a_positive_refusal_says_that_nothing_was_made(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    wire.fault("RunInstances", *REFUSALS)
    for answer in REFUSALS:
        with pytest.raises(NotCreated) as e:
            launch(provider, spec)
        assert e.value.provider_code == answer.split()[1] and e.value.request_id.startswith("req-")
    assert len(wire.sent("RunInstances")) == len(REFUSALS)


def test_whatever_is_not_a_positive_refusal_is_never_called_one(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    # A real group, because moto refuses to launch into one that does not exist.
    made = {"security-group": provider.create("security-group", spec, lease=LEASE, token="g", made={})}
    wire.fault("RunInstances", *UNKNOWNS)
    for number, answer in enumerate(UNKNOWNS):
        with pytest.raises(ProviderError) as e:
            provider.create("instance", spec, lease=LEASE, token=f"t{number}", made=made)
        assert not isinstance(e.value, NotCreated), answer
    assert len(wire.sent("RunInstances")) == len(UNKNOWNS)
    assert [r.token for r in provider.inventory(LEASE).resources if r.kind == "instance"] == [f"t{UNKNOWNS.index('lose')}"]


def test_a_token_that_was_used_before_says_that_something_exists(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    wire.fault("RunInstances", "400 IdempotentInstanceTerminated")
    with pytest.raises(ProviderError) as e:
        launch(provider, spec)
    assert "exists or existed" in e.value.why


def test_a_denied_launch_made_nothing_and_asking_again_will_not_help(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    wire.fault("RunInstances", "403 UnauthorizedOperation")
    with pytest.raises(NotCreated) as e:
        launch(provider, spec)
    assert isinstance(e.value, NotPermitted) and e.value.next


def test_an_encoded_message_stays_whole_because_a_cut_one_opens_nothing() -> None:
    blob = "aZ09-_+/=" * 300
    words = f"You are not authorized to perform this operation. {'x' * 500} Encoded authorization failure message: {blob}"
    response = {"Error": {"Code": "UnauthorizedOperation", "Message": f"{words}\x1b[2J{'y' * 20000}"}}
    e = fault(ClientError(response, "RunInstances"), "RunInstances", creating=True)
    assert e.why.split("\n")[-1] == blob and "decode-authorization-message" in e.why and blob not in e.what
    assert len(e.what) < 500 and "\x1b" not in e.what + e.why
    too_long = {"Error": {"Code": "UnauthorizedOperation", "Message": words.replace(blob, "z" * 20000)}}
    assert len((long := fault(ClientError(too_long, "RunInstances"), "RunInstances")).what + long.why) < 700, "whoever answers, a bound"


def test_capacity_and_quota_say_what_to_try(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    for answer, words in [("500 InsufficientInstanceCapacity", "another zone"), ("400 VcpuLimitExceeded", "quota")]:
        wire.fault("RunInstances", answer)
        with pytest.raises(NotCreated) as e:
            launch(provider, spec)
        assert words in e.value.next


def test_no_credentials_is_a_refusal_that_names_the_next_command(wire: Wire, spec: LaunchSpec) -> None:
    forget_clients()
    nobody = AwsProvider("us-east-1")
    with pytest.raises(RefusedError, match="there are no AWS credentials here") as e:
        nobody.identity()
    assert "aws sso login" in e.value.next
    with pytest.raises(NotCreated) as nothing:
        nobody.create("security-group", spec, lease=LEASE, token="t", made={})
    assert "never left" in nothing.value.why and "aws sso login" in nothing.value.next
    with pytest.raises(ProviderError):
        nobody.inventory(LEASE)
    assert wire.requests == []


def test_a_profile_that_does_not_exist_is_a_refusal(wire: Wire) -> None:
    with pytest.raises(RefusedError, match="'nobody' is not configured") as e:
        AwsProvider("us-east-1", profile="nobody").identity()
    assert e.value.next == "aws sso login --profile nobody"


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidClientTokenId", "SignatureDoesNotMatch"])
def test_credentials_that_aws_does_not_accept_are_a_refusal(provider: AwsProvider, wire: Wire, code: str) -> None:
    wire.fault("GetCallerIdentity", f"403 {code}")
    with pytest.raises(RefusedError, match=code) as e:
        provider.identity()
    assert "aws sso login" in e.value.next


def test_a_wrong_clock_is_told_as_a_wrong_clock(provider: AwsProvider, wire: Wire) -> None:
    wire.fault("GetCallerIdentity", "403 RequestExpired")
    with pytest.raises(RefusedError) as e:
        provider.identity()
    assert "clock" in e.value.next


def test_identity_is_the_account_and_the_arn(provider: AwsProvider) -> None:
    assert provider.identity().account == "123456789012" and provider.identity().arn.startswith("arn:aws:")


def test_a_hostile_message_is_one_harmless_line() -> None:
    from botocore.exceptions import ClientError

    from provisioner.providers.aws_errors import fault

    e = fault(ClientError({"Error": {"Code": "X", "Message": "a\x1b[2J\nb" + "z" * 999}, "ResponseMetadata": {}}, "Op"), "Op")
    assert "\x1b" not in e.what and "\n" not in e.what and len(e.what) < 450


HERE_ONLY = ["500 InsufficientInstanceCapacity", "400 SpotMaxPriceTooLow", "400 Unsupported", "400 InsufficientFreeAddressesInSubnet"]
EVERYWHERE = ["400 VcpuLimitExceeded", "400 MaxSpotInstanceCountExceeded", "403 UnauthorizedOperation", "400 InvalidAMIID.NotFound"]


def test_a_refusal_of_this_offer_is_told_from_a_refusal_of_the_request(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    for answer in HERE_ONLY + EVERYWHERE:
        wire.fault("RunInstances", answer)
        with pytest.raises(NotCreated) as refused:
            launch(provider, spec)
        assert isinstance(refused.value, NoCapacity) == (answer in HERE_ONLY), answer
