"""Help of a command: one style of placeholders, two examples, and the page of the docs that says more."""

from __future__ import annotations

from functools import partial
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from flows.commands.completion import completion_of
from flows.commands.exit_codes import one_line_usage

PLACEHOLDERS = {"str": "TEXT", "int": "N", "float": "X", "path": "PATH", "list[str]": "TEXT"}
"""Of options that name none themselves; a flag has none."""

_IS_JSON = "overtile.is_json"

START = "README.md"
"""The page that lies above docs/ and begins the site."""

EXAMPLES: dict[str, tuple[str, str, str]] = {
    "segment": (
        "overtile segment slide.svs -m nuclei -o runs/slide",
        "overtile segment scene.tif --bands 3,2,1 --gsd 0.3 -o runs/scene --dry-run",
        "segmenting.md",
    ),
    "rerun": ("overtile rerun runs/slide --tile 3,12 --tile 3,13", "overtile rerun segmented --failed", "runs.md"),
    "verify": ("overtile verify runs/slide", "overtile verify runs/slide --tiles 20 --json", "reliability.md"),
    "status": ("overtile status runs/slide", "overtile status segmented --json", "runs.md"),
    "export": (
        "overtile export runs/slide --format geojson --format statistics",
        "overtile export runs/slide --force --json",
        "exports.md",
    ),
    "train": ("overtile train recipe.toml -o runs/train", "overtile train recipe.toml --threads 4", "training.md"),
    "demo": ("overtile demo", "overtile demo -o /tmp/demo", "viewing.md"),
    "archive": (
        "overtile archive slides/ -o segmented --until 06:00",
        "overtile archive 's3://lab/slides/**/*.svs' -o s3://lab/runs --dry-run",
        "archives.md",
    ),
    "serve": (
        "overtile serve segmented --cron '0 1 * * *' --until 06:00",
        "overtile serve segmented --timezone Europe/Berlin",
        "archives.md",
    ),
    "doctor": ("overtile doctor", "overtile doctor -o runs --image slide.svs --json", "workstation.md"),
    "view": ("overtile view runs/slide", "overtile view segmented --no-browser --port 8080", "viewing.md"),
    "models": ("overtile models show nuclei", "overtile models import net.pt2 --card net.toml -o mine", "models.md"),
    "list": ("overtile models list", "overtile models list --json", "models.md"),
    "show": ("overtile models show nuclei", "overtile models show unetpp --json", "models.md"),
    "import": (
        "overtile models import net.pt2 --card net.toml -o mine",
        "overtile models import nets:make --trust-code --card net.toml -o mine",
        "own-network.md",
    ),
    "export-model": (
        "overtile models export nuclei -o nuclei.pt2",
        "overtile models export nuclei -o mine",
        "own-network.md",
    ),
}
"""Of each command two calls, and its page in docs/."""


def epilog(name: str) -> str:
    """Text below a command's options."""
    first, second, page = EXAMPLES[name]
    return f"Examples:\n\n  {first}\n\n  {second}\n\nDocs: {docs(page)}"


def docs(page: str) -> str:
    """A page's address: where the package's metadata name one of its docs, else its place in the source."""
    try:
        links: list[str] = metadata("overtile").get_all("Project-URL") or []
    except PackageNotFoundError:
        links = []
    address = next((each.partition(", ")[2] for each in links if each.startswith("Documentation,")), "")
    return f"{address.rstrip('/')}/{in_site(page)}" if address else page if page == START else f"docs/{page}"


def in_site(page: str) -> str:
    """A page's file in the site that `make docs` builds."""
    return "index.html" if page == START else f"{page.removesuffix('.md')}.html"


def _in_style(parameters: list[Any]) -> list[Any]:
    """Placeholders in capitals, choices as `a|b`, a bound as `N≥1`; none for a flag, and of an argument its name alone.

    A flag that is off and a number that stands for none, such as a free port, have no default to show.
    """
    for each in parameters:
        if isinstance(each, TyperArgument):
            each.metavar = each.metavar or str(each.name).upper()
            setattr(each, "display_type_rich", _nothing)  # noqa: B010 (the library's own methods)
            setattr(each, "_usage_display_name", partial(_usage, each))  # noqa: B010
        elif isinstance(each, TyperOption):
            if each.metavar is None:
                kind = "path" if each.type_descriptor.is_path else each.bare_type()
                least = f"≥{each.min}" if each.min else ""
                each.metavar = "" if each.is_flag else f"{PLACEHOLDERS.get(kind, kind.upper())}{least}"
            _complete_as_shown(each)
            setattr(each, "_get_number_range_help_str", _no_range)  # noqa: B010
            each.show_default = bool(each.show_default) and each.default not in (False, 0)
    return parameters


def _usage(argument: TyperArgument) -> str:
    """An argument in the line of usage, in brackets where it can be left out."""
    name = str(argument.metavar) if argument.required else f"[{argument.metavar}]"
    return f"{name}..." if argument.nargs != 1 else name


def _complete_as_shown(option: TyperOption) -> None:
    """Let a shell offer the choices that the placeholder shows."""
    offered = completion_of(option.metavar or "")
    if offered is not None and getattr(option, "_custom_shell_complete", None) is None:

        def complete(context: Any, parameter: Any, incomplete: str) -> list[str]:
            del context, parameter
            return offered(incomplete)

        setattr(option, "_custom_shell_complete", complete)  # noqa: B010 (the library's own methods)


def _no_range() -> None:
    """The bound stands in the placeholder."""


def _nothing(ctx: Any) -> str:
    del ctx
    return ""


class Command(TyperCommand):
    """A command whose help names placeholders in one way."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _in_style(super().get_params(ctx))


class Group(TyperGroup):
    """The same of a group of commands, whose wrong words are refused as other wrong values are: on one line."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _in_style(super().get_params(ctx))

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        is_json = "--json" in args  # before the words are taken apart
        with one_line_usage(is_json):
            context = super().make_context(info_name, args, parent, **extra)
        context.meta[_IS_JSON] = is_json
        return context

    def invoke(self, ctx: Any) -> Any:
        with one_line_usage(ctx.meta.get(_IS_JSON, False)):
            return super().invoke(ctx)
