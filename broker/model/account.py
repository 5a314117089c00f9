"""How the API server calls ServiceAccounts. Pure.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#service-account-tokens
"""

USER_PREFIX = "system:serviceaccount:"
ALL_ACCOUNTS = "system:serviceaccounts"


def account_user(namespace: str, account: str) -> str:
    """Return the name of an account as a user: the subject of its tokens."""
    return f"{USER_PREFIX}{namespace}:{account}"


def namespace_group(namespace: str) -> str:
    """Return the group of all accounts of a namespace."""
    return f"{ALL_ACCOUNTS}:{namespace}"


def account_groups(namespace: str) -> tuple[str, str, str]:
    """Return the groups of each account of a namespace; without all three, too much would seem denied."""
    return ALL_ACCOUNTS, namespace_group(namespace), "system:authenticated"
