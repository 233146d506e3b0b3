"""Creating, editing, copying and deleting probes of the managed file on pages, which work without scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from watchdog.domain.acts import Actor
from watchdog.domain.text import capitalize_first
from watchdog.service.config_reload import ConfigReloadResultKind
from watchdog.service.managed_edits import (
    ManagedProbe,
    ManagedProbeRefusalReason,
    ManagedProbeRefusedError,
    ManagedProbes,
    ProbeEdit,
    SavedProbeEdit,
    build_masked_probe_diff,
)
from watchdog.service.managed_probes import ManagedProbeEditor, save_and_record_probe_edit
from watchdog.store.read.status import load_watchdog_status
from watchdog.web.auth.acts import require_operator_role
from watchdog.web.errors import HttpErrorResponseError, PageNotFoundError
from watchdog.web.pages.probe_form import (
    NEW_PROBE_KINDS,
    ProbeForm,
    ProbeFormPage,
    build_probe_form_inputs_and_other_problems,
    create_form_of_probe,
    create_new_probe_form,
    read_probe_form,
    split_inputs_shown_first_from_others,
)
from watchdog.web.routes.act_forms import read_act_form, redirect_to_page
from watchdog.web.routes.operators import OperatorRouteContext

MAX_PROBE_FORM_BYTES = 131_072
NEW_PROBE_PATH = "/config/new-probe"
NO_MANAGED_FILE_TEXT = (
    "Probes cannot be edited here, because the configuration names no managed file. Add `managed: managed.yaml` to it."
)


def create_probe_form_router(context: OperatorRouteContext) -> APIRouter:
    """Only operators see these pages."""
    router = APIRouter(dependencies=[Depends(context.authenticate), Depends(require_operator_of_page)])
    forms = ProbeFormResponder(context)
    add_form_routes(router, forms)
    add_deletion_routes(router, forms)
    return router


async def require_operator_of_page(request: Request) -> None:
    """Raises WebRequestRefusedError."""
    require_operator_role(request)


def add_form_routes(router: APIRouter, forms: ProbeFormResponder) -> None:
    @router.get(NEW_PROBE_PATH)
    async def show_new_probe(request: Request, kind: str = "", copy: str = "") -> Response:
        if copy:
            probe, managed = await forms.require_managed_probe_with_file(copy)
            return await forms.render(request, create_form_of_probe(probe, managed.version, is_copy=True))
        return await forms.render(request, create_new_probe_form(kind))

    @router.post(NEW_PROBE_PATH)
    async def create_managed_probe_from_form(request: Request) -> Response:
        fields, actor = await read_act_form(request, forms.context, MAX_PROBE_FORM_BYTES)
        return await forms.respond(request, fields, read_probe_form(fields, ""), actor)

    @router.get("/config/probes/{probe_id}")
    async def show_managed_probe(request: Request, probe_id: str) -> Response:
        probe, managed = await forms.require_managed_probe_with_file(probe_id)
        return await forms.render(request, create_form_of_probe(probe, managed.version))

    @router.post("/config/probes/{probe_id}")
    async def edit_probe(request: Request, probe_id: str) -> Response:
        fields, actor = await read_act_form(request, forms.context, MAX_PROBE_FORM_BYTES)
        return await forms.respond(request, fields, read_probe_form(fields, probe_id), actor)


def add_deletion_routes(router: APIRouter, forms: ProbeFormResponder) -> None:
    @router.get("/config/probes/{probe_id}/delete")
    async def confirm_deletion(request: Request, probe_id: str) -> Response:
        probe, managed = await forms.require_managed_probe_with_file(probe_id, is_text_required=False)
        checked = await forms.get_editor().check(ProbeEdit(id=probe_id, is_deletion=True, version=managed.version))
        form = ProbeForm("", probe_id=probe_id, version=managed.version)
        title = f"Delete {probe.name}"
        page = await forms.build_page(form, managed, title=title, is_checked=True, diff=checked.diff)
        return await forms.context.render_page(request, "probe_deletion.j2", "probes", page, forms.context.clock())

    @router.post("/config/probes/{probe_id}/delete")
    async def delete_probe(request: Request, probe_id: str) -> Response:
        fields, actor = await read_act_form(request, forms.context)
        edit = ProbeEdit(id=probe_id, is_deletion=True, version=fields.get("version", "") or "-")
        await save_and_record_probe_edit(forms.get_editor(), edit, forms.context.run_act, actor)
        return redirect_to_page("/probes")


class ProbeFormResponder:
    """Answers a form with what it led to, and with everything that was entered unless it was stored."""

    def __init__(self, context: OperatorRouteContext):
        self.context = context

    def get_editor(self) -> ManagedProbeEditor:
        """Raises HttpErrorResponseError."""
        editor = self.context.managed_probes
        if editor is None or not editor.is_enabled:
            raise HttpErrorResponseError(409, NO_MANAGED_FILE_TEXT)
        return editor

    async def require_managed_probe_with_file(
        self, probe_id: str, *, is_text_required: bool = True
    ) -> tuple[ManagedProbe, ManagedProbes]:
        """A probe of the file, and the file. Raises HttpErrorResponseError and ManagedProbeRefusedError."""
        managed = await self.get_editor().read()
        probe = next((probe for probe in managed.probes if probe.id == probe_id), None)
        if probe is None:
            message = f"No probe in the managed file has the id {probe_id}. Other probes are edited in their own files."
            raise PageNotFoundError(message)
        if is_text_required and not probe.yaml:
            text = (
                "The probe shares values with other parts of the managed file, or is not valid. Edit the file by hand."
            )
            raise HttpErrorResponseError(409, text)
        return probe, managed

    async def respond(self, request: Request, fields: Mapping[str, str], form: ProbeForm, actor: Actor) -> Response:
        """Carry out the button that was pressed."""
        editor = self.get_editor()
        try:
            edit = form.build_probe_edit(await editor.read())
            if fields.get("action") == "save":
                saved = await save_and_record_probe_edit(editor, edit, self.context.run_act, actor)
                return await self._show_saved(request, saved)
            if fields.get("action") == "try":
                return await self.render(request, form, run=await editor.try_once(edit, actor))
            checked = await editor.check(edit)
            return await self.render(request, form, is_checked=True, diff=checked.diff, warnings=checked.warnings)
        except ManagedProbeRefusedError as e:
            return await self._show_refusal(request, form, e)

    async def _show_saved(self, request: Request, saved: SavedProbeEdit) -> Response:
        probe_id = saved.checked.probe_id
        if saved.reload is not None and saved.reload.result is ConfigReloadResultKind.APPLIED:
            return redirect_to_page("/probes/", probe_id)
        probe, managed = await self.require_managed_probe_with_file(probe_id)
        when = "when the database is back" if saved.reload else "with the next reload, as `reload` is `on_signal`"
        if saved.reload is not None and saved.reload.result is ConfigReloadResultKind.INVALID:
            when = f"once the configuration is valid: {saved.reload.problems[0]}"
        text = f"The probe is stored in {managed.file}. It takes effect {when}."
        return await self.render(request, create_form_of_probe(probe, managed.version), refusal=text)

    async def _show_refusal(self, request: Request, form: ProbeForm, error: ManagedProbeRefusedError) -> Response:
        text, status_code = f"{capitalize_first(str(error))}.", 409
        if error.reason is ManagedProbeRefusalReason.INVALID:
            text, status_code = "Nothing was stored: correct what is marked below.", 422
        if error.reason in (ManagedProbeRefusalReason.FILE_CHANGED, ManagedProbeRefusalReason.NOT_FOUND):
            return await self._show_conflict(request, form)
        return await self.render(request, form, error=error, refusal=text, status_code=status_code)

    async def _show_conflict(self, request: Request, form: ProbeForm) -> Response:
        """What was entered stays, and can be stored over what the file holds now."""
        managed = await self.get_editor().read()
        probe = next((probe for probe in managed.probes if probe.id == form.probe_id), None)
        diff = build_masked_probe_diff(probe.yaml if probe else "", form.to_yaml(managed), managed.file, 0)
        if probe is None:
            text = "The probe is no longer in the file. Nothing was stored. Save it to add it again."
            form = ProbeForm(form.kind, form.fields)
        else:
            text = (
                "The file has changed since you opened this form, and nothing was stored. Compare what it holds now "
                "with what you have entered, and save it again to replace that."
            )
            form = replace(form, version=managed.version)
        return await self.render(request, form, refusal=text, conflict_diff=diff, status_code=409)

    async def render(
        self,
        request: Request,
        form: ProbeForm,
        *,
        error: ManagedProbeRefusedError | None = None,
        status_code: int = 200,
        **content: Any,
    ) -> Response:
        managed = ManagedProbes(self.get_editor().managed_file_path, "")
        page = await self.build_page(form, managed, error=error, **content)
        response = await self.context.render_page(request, "probe_form.j2", "probes", page, self.context.clock())
        response.status_code = status_code
        return response

    async def build_page(
        self, form: ProbeForm, managed: ManagedProbes, *, error: ManagedProbeRefusedError | None = None, **content: Any
    ) -> ProbeFormPage:
        inputs, rest_problems = (
            build_probe_form_inputs_and_other_problems(form, error.problems if error else ()) if form.kind else ([], ())
        )
        first, more = split_inputs_shown_first_from_others(inputs)
        is_more_open = bool(rest_problems or form.fields.rest) or any(each.value or each.problems for each in more)
        title = "Edit probe" if form.probe_id else "New probe"
        return ProbeFormPage(
            service_status=await self.context.run_query(load_watchdog_status),
            form=form,
            file=managed.file,
            first_inputs=first,
            more_inputs=more,
            rest_problems=rest_problems,
            is_more_open=is_more_open,
            kinds=() if form.probe_id else NEW_PROBE_KINDS,
            **{"title": title, **content},
        )
