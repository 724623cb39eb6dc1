"""What botocore signs for the requests that Claude Code makes of Bedrock, and for vectors of AWS's published test suite.

Run by hand, once for each new shape of request, and the result is committed beside it:

    python3 -m venv venv && venv/bin/pip install botocore==1.44.8
    venv/bin/python crates/egress/tests/data/botocore_signatures.py > crates/egress/tests/data/botocore_signatures.json
"""

import datetime
import hashlib
import json
import unittest.mock

import botocore
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

KEY_ID, SECRET_KEY = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TIME = datetime.datetime(2026, 11, 26, 9, 0, 0, tzinfo=datetime.timezone.utc)
SUITE_TIME = datetime.datetime(2015, 8, 30, 12, 36, 0, tzinfo=datetime.timezone.utc)
BODY = '{"anthropic_version":"bedrock-2023-05-31","max_tokens":100,"messages":[{"role":"user","content":"h\u00e9"}]}'
PROFILE = "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3A"
MODELS = [
    "us.anthropic.claude-opus-5-5",
    "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "anthropic.claude-sonnet-4-5-20250929-v1%3A0",
    PROFILE + "inference-profile%2Fus.anthropic.claude-sonnet-4-5-20250929-v1%3A0",
    PROFILE + "application-inference-profile%2Fabcdef123456",
    PROFILE + "provisioned-model%2Fabc",
]
VERBS = ["invoke", "invoke-with-response-stream", "count-tokens"]
REGIONS = ["us-east-1", "eu-central-1", "us-gov-west-1", "cn-north-1"]
TOKENS = [None, "SESSION/TOKEN+="]


def sign(time, service, region, url, body, token, hash_header):
    request = AWSRequest(method="POST", url=url, data=body.encode())
    request.context["payload_signing_enabled"] = True
    if hash_header:
        request.headers["X-Amz-Content-SHA256"] = hashlib.sha256(body.encode()).hexdigest()
    auth = SigV4Auth(Credentials(KEY_ID, SECRET_KEY, token), service, region)
    naive = time.replace(tzinfo=None)
    with unittest.mock.patch("botocore.auth.get_current_datetime", return_value=naive):
        auth.add_auth(request)
    return request.headers["Authorization"]


def case(region, model, verb, token, body):
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    url = f"https://bedrock-runtime.{region}.{domain}/model/{model}/{verb}"
    authorization = sign(TIME, "bedrock", region, url, body, token, True)
    return dict(region=region, url=url, body=body, token=token, authorization=authorization)


cases = [case("us-east-1", model, verb, token, BODY) for model in MODELS for verb in VERBS for token in TOKENS]
cases += [case(region, MODELS[0], VERBS[1], TOKENS[1], BODY) for region in REGIONS[1:]]
cases += [case("us-east-1", MODELS[0], VERBS[0], None, "")]
suite = [
    dict(name=name, url=url, authorization=sign(SUITE_TIME, "service", "us-east-1", url, "", None, False))
    for name, url in [
        ("post-vanilla", "https://example.amazonaws.com/"),
        ("post-vanilla-query", "https://example.amazonaws.com/?Param1=value1"),
    ]
]
print(json.dumps(dict(botocore=botocore.__version__, cases=cases, suite=suite), indent=1))
