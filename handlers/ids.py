"""Every action, callback and block id; a button's value is the request id, sometimes with minutes: ``AR-7F3K 30``."""

REVIEW_APPROVE = "review.approve"
REVIEW_APPROVE_SHORTER = "review.approve_shorter"
REVIEW_DENY = "review.deny"  # opens the modal that asks for a reason
REVIEW_DENY_MODAL = "review.deny_modal"

REQUEST_MODAL = "request.submit"
REQUEST_SERVERS = "request.servers"
REQUEST_DURATION = "request.duration"
REQUEST_REASON = "request.reason"
REQUEST_SOURCE_IP = "request.source_ip"
REQUEST_CANCEL = "request.cancel"
REQUEST_COMPLETE = "request.complete"
REQUEST_RETRY = "request.retry"
REQUEST_REVOKE = "request.revoke"  # opens the modal that asks for a reason
REQUEST_REVOKE_MODAL = "request.revoke_modal"

CREDENTIALS_SHOW = "credentials.show"
CREDENTIALS_BUNDLE = "credentials.bundle"  # a URL button; Slack sends the click all the same

LINK_OPEN = "link.open"  # a URL button; Slack sends the click all the same

REASON = "reason"  # the one input of the modals that ask for a reason
