"""Signs in on pages, reads them and sends their forms, as a browser does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape

import httpx
from fastapi import FastAPI

from tests.support.html_checks import find_html_problems
from tests.support.web import request_page
from watchdog.web import ApiKey
from watchdog.web.auth.session import SESSION_COOKIE_NAME


def sign_in(app: FastAPI, key: ApiKey, headers: Mapping[str, str] | None = None) -> str:
    response = request_page(app, "/login", "POST", data={"key": key.secret}, headers=headers)
    return response.headers["set-cookie"].partition(";")[0].partition("=")[2]


def read_page(app: FastAPI, path: str, cookie: str) -> str:
    response = request_page(app, path, headers={"Cookie": f"{SESSION_COOKIE_NAME}={cookie}"})
    assert response.status_code == 200
    assert find_html_problems(response.text) == []
    return response.text


def find_token(html: str) -> str:
    return unescape(re.findall(r'name="csrf_token" value="([^"]+)"', html)[0])


def submit(
    app: FastAPI, path: str, fields: Mapping[str, str], cookie: str, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    given = {"Cookie": f"{SESSION_COOKIE_NAME}={cookie}", "Sec-Fetch-Site": "same-origin", **(headers or {})}
    return request_page(app, path, "POST", data=dict(fields), headers=given)
