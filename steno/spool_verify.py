"""What ``steno spool verify`` looks at, and how it says what it found."""

from typing import cast

from ingest_client.spool.offline import Instance, Local, set_aside, survey
from ingest_client.spool.tools import Json, Selection, ToolError
from steno.spool_pages import pages


def verified(instance: Instance) -> Json:
    """Check an instance; ``sound`` is false unless everything was checked that can be, and was right."""
    report: Json = {"instance": instance.name, "running": instance.running}
    aside = [
        {
            "folder": str(each.folder),
            "salvaged": each.report,
            "readable": None if each.report else each.readable,
            "unreachable": None if each.report else each.unreachable,
        }
        for each in set_aside(instance.folder)
    ]
    report["set_aside"] = aside
    if instance.access is None:
        report |= {"structure": instance.trouble, "sound": False}
        if not instance.running and (instance.folder / "spool.db").exists():
            found = survey(instance.folder)
            report |= {"readable": found.readable, "unreachable": found.unreachable}
        return report
    checked = known = 0
    damaged: list[object] = []
    mended: list[object] = []
    problems: list[object] = []
    try:
        for page in pages(instance, "verify", Selection(), progress="checked"):
            checked += cast("int", page["checked"])
            known += cast("int", page["already_set_aside"])
            damaged += cast("list[object]", page["damaged"])
            mended += cast("list[object]", page["mended"])
        problems += cast("list[object]", instance.access.call("check_books", Selection())["problems"])
        structure = instance.access.structure() if isinstance(instance.access, Local) else None
    except (ToolError, OSError) as error:
        structure = [str(error)]
    report |= {
        "checked": checked,
        "damaged": damaged,
        "mended": mended,
        "already_set_aside": known,
        "problems": problems,
        "structure": "every row read; pages unchecked while the process runs"
        if structure is None
        else structure or "ok",
        "sound": not (damaged or mended or problems or structure or aside),
    }
    return report


def verdict(report: Json) -> str:
    """A report of :func:`verified` for people."""
    lines = [
        f"{report['instance']}: {report.get('checked', 0)} records checked, structure: {report['structure']}"
    ]
    lines += [f"  damaged, set aside: {each}" for each in cast("list[Json]", report.get("damaged", []))]
    lines += [f"  row mended: {each}" for each in cast("list[str]", report.get("mended", []))]
    lines += [f"  {each}" for each in cast("list[str]", report.get("problems", []))]
    if report.get("already_set_aside"):
        lines.append(f"  damaged earlier: {report['already_set_aside']}")
    if "unreachable" in report:
        lines.append(f"  readable: {report['readable']}, unreachable: {_number(report['unreachable'])}")
    for each in cast("list[Json]", report["set_aside"]):
        state = each["salvaged"] or f"{each['readable']} readable, {_number(each['unreachable'])} unreachable"
        lines.append(f"  files set aside: {each['folder']}: {state}")
    return "\n".join(lines)


def _number(value: object) -> str:
    return "unknown" if value is None else str(value)
