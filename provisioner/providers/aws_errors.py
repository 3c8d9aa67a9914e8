"""What an AWS error says about the world: nothing was made, we may not, or nothing follows.

The one question that matters is whether a create may have happened. `REFUSED` lists the codes with which EC2
positively declines RunInstances or CreateSecurityGroup; a request that never left this machine (no credentials, no
connection) is the same. Everything else is ambiguous: a timeout, a reset, a 5xx, and also `RequestLimitExceeded`,
because no AWS page says that a throttled request was not executed. `IdempotentParameterMismatch` and
`IdempotentInstanceTerminated` mean that the token *was* used, so something exists or existed: never a refusal.

Error codes: the page "Error codes for the Amazon EC2 API"; InsufficientInstanceCapacity arrives as HTTP 500.
This file must not know requests or resources.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from provisioner.clean import clean
from provisioner.errors import NoCapacity, NotCreated, NotPermitted, ProviderError, RefusedError
from provisioner.providers.aws_actions import ACTIONS, BUCKET_ONLY, FLEET_ONLY


class NotAsked(RefusedError, NotCreated):
    """We refused before the provider was asked: nothing was made, and the user's input is why."""


class NotHere(NotAsked, NoCapacity):
    """We refused because this zone lacks what a launch needs there; another one may have it."""


class NotAllowedToCreate(NotPermitted, NotCreated):
    """AWS answered that these credentials may not create this: nothing was made, and asking again will not help."""


DENIED = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "NotAuthorized", "403"})

CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)

# botocore's own exceptions that are raised before a byte of the request has left.
NEVER_SENT = frozenset(
    {
        "ConnectTimeoutError",
        "CredentialRetrievalError",
        "EndpointConnectionError",
        "NoAuthTokenError",
        "NoCredentialsError",
        "ParamValidationError",
        "PartialCredentialsError",
        "ProxyConnectionError",
        "SSOTokenLoadError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
    }
)
NO_LOGIN = frozenset(NEVER_SENT - {"ConnectTimeoutError", "EndpointConnectionError", "ParamValidationError", "ProxyConnectionError"})

REFUSED = frozenset(
    {
        "AuthFailure.ServiceLinkedRoleCreationNotPermitted",  # before a fleet or spot machine can be, and these credentials may not make it
        "Blocked",
        "DefaultVpcDoesNotExist",
        "InstanceLimitExceeded",
        "InsufficientAddressCapacity",
        "InsufficientCapacity",
        "InsufficientFreeAddressesInSubnet",
        "InsufficientHostCapacity",
        "InsufficientInstanceCapacity",
        "InsufficientReservedInstanceCapacity",
        "InvalidAction",
        "InvalidAvailabilityZone",
        "InvalidBlockDeviceMapping",
        "InvalidFleetConfiguration",
        "InvalidInput",
        "InvalidInstanceType",
        "InvalidSubnet",
        "InvalidTagKey.Malformed",
        "MaxSpotInstanceCountExceeded",
        "MissingInput",
        "MissingParameter",
        "OptInRequired",
        "PendingVerification",
        "ResourceNotFoundException",  # Scheduler: the group is not there, so nothing was put into it
        "SecurityGroupLimitExceeded",
        "ServiceQuotaExceededException",
        "SpotMaxPriceTooLow",
        "TagLimitExceeded",
        "UnknownParameter",
        "Unsupported",
        "UnsupportedOperation",
        "UnsupportedTenancy",
        "VPCIdNotSpecified",
        "ValidationError",
        "ValidationException",
        "VcpuLimitExceeded",
        "VolumeLimitExceeded",
    }
)
REFUSED_FAMILIES = (
    "InvalidAMIID.",
    "InvalidGroup.",
    "InvalidGroupId.",
    "InvalidKeyPair.",
    "InvalidLaunchTemplateId.",
    "InvalidParameter",  # InvalidParameterValue, InvalidParameterCombination, InvalidParameter
    "InvalidSecurityGroupID.",
    "InvalidSnapshot.",
    "InvalidSubnetID.",
    "InvalidUserData.",
    "InvalidVpcID.",
    "InvalidZone.",
)

# Refusals of this offer, and not of the request: another zone, region, type or way to buy may have some.
CAPACITY = frozenset(
    {
        "InsufficientCapacity",
        "InsufficientFreeAddressesInSubnet",
        "InsufficientHostCapacity",
        "InsufficientInstanceCapacity",
        "InsufficientReservedInstanceCapacity",
        "SpotMaxPriceTooLow",
        "Unsupported",  # the type is not offered in that zone
    }
)

GONE_WORDS = (".NotFound", ".NotFoundException", ".NonExistentQueue")
GONE_CODES = frozenset({"NoSuchEntity", "QueueDoesNotExist", "ResourceNotFoundException"})


def fault(e: Exception, operation: str, *, creating: bool = False, profile: str | None = None) -> ProviderError:
    """An exception of botocore's as one of ours. `creating` allows NotCreated, and only where it is certain."""
    response: Mapping[str, Any] = getattr(e, "response", None) or {}
    error = response.get("Error", {}) if isinstance(response, Mapping) else {}
    code = str(error.get("Code") or type(e).__name__)
    said, encoded = _parted(str(error.get("Message") or e))
    message = clean(said, limit=400)
    request_id = request_id_of(response)
    kind = _kind(code, answered=bool(error), creating=creating)
    return kind(
        f"{operation}: {code}: {message}",
        why=_why(code, kind) + encoded,
        next=_next(code, message, profile),
        provider_code=code,
        request_id=request_id,
    )


_ENCODED = re.compile(r"\s*Encoded authorization failure message: ([A-Za-z0-9+/=_-]{1,16384})(?![A-Za-z0-9+/=_-])")


def _parted(message: str) -> tuple[str, str]:
    """What AWS said, and apart from it the message that only `aws sts decode-authorization-message` reads: cut, it reads nothing.

    It is encrypted, and AWS opens it only for whoever has sts:DecodeAuthorizationMessage in that account.
    """
    found = _ENCODED.search(message)
    if found is None:
        return message, ""
    shown = f"\nwhat it rests on, for aws sts decode-authorization-message --encoded-message:\n{found[1]}"
    return message[: found.start()] + message[found.end() :], shown


def request_id_of(response: Mapping[str, Any]) -> str:
    meta = response.get("ResponseMetadata", {}) if isinstance(response, Mapping) else {}
    return str(meta.get("HTTPHeaders", {}).get("x-amzn-requestid") or meta.get("RequestId") or "")


def not_found(e: ProviderError) -> bool:
    """Did the provider answer that there is no such thing?"""
    return e.provider_code in GONE_CODES or (e.provider_code.endswith(GONE_WORDS) and not e.provider_code.startswith("InvalidAMIID"))


def missing_permission(message: str) -> str:
    """The action that AWS's own words name ("not authorized to perform: ec2:RunInstances on resource: …"); "" when they do not."""
    found = re.search(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)", message)
    return found[1] if found else ""


def login_next(profile: str | None) -> str:
    return f"aws sso login --profile {profile}" if profile else "aws sso login, or aws configure; then aws sts get-caller-identity"


def _kind(code: str, *, answered: bool, creating: bool) -> type[ProviderError]:
    if not answered:
        return NotCreated if creating and code in NEVER_SENT else ProviderError
    if code in DENIED:
        return NotAllowedToCreate if creating else NotPermitted
    if creating and code in CAPACITY:
        return NoCapacity
    if creating and (code in REFUSED or code in CREDENTIALS or code.startswith(REFUSED_FAMILIES)):
        return NotCreated
    return ProviderError


def _why(code: str, kind: type[ProviderError]) -> str:
    if code in NEVER_SENT:
        return "the request never left this machine"
    if issubclass(kind, NotCreated):
        return "AWS answered that it did not do it"
    if code in ("IdempotentParameterMismatch", "IdempotentInstanceTerminated"):
        return "this token was used before, so what it made exists or existed"
    if issubclass(kind, NotPermitted):
        return "AWS answered that these credentials may not do this"
    return "no answer that says what happened; it may or may not have been done"


def _next(code: str, message: str, profile: str | None) -> str:
    if code == "RequestExpired":
        return "set this machine's clock (timedatectl set-ntp true); AWS refuses requests more than 5 minutes off"
    if code in CREDENTIALS or code in NO_LOGIN:
        return login_next(profile)
    if code in DENIED:
        action = missing_permission(message)
        policy = next((a.policies[0] for a in ACTIONS if a.name == action), "runner")
        more = " --fleet" if action in FLEET_ONLY else " --bucket NAME, the trail's" if action in BUCKET_ONLY else ""
        return f"give these credentials {action or 'the missing permission'}: gpulease iam policy {policy}{more}"
    if code in ("InsufficientInstanceCapacity", "Unsupported", "InsufficientCapacity"):
        return "try again later (another zone may have some), or another type in `needs.types`: gpulease plan PROFILE"
    if code == "AuthFailure.ServiceLinkedRoleCreationNotPermitted":
        return "somebody who may makes that role, once: aws iam create-service-linked-role --aws-service-name SERVICE.amazonaws.com"
    if code in ("VcpuLimitExceeded", "InstanceLimitExceeded"):
        return "ask for a higher vCPU quota (console: Service Quotas, Amazon EC2), or take a smaller type"
    if code == "OperationNotPermitted":
        return "somebody turned termination protection on: aws ec2 modify-instance-attribute --no-disable-api-termination --instance-id ID"
    return ""
