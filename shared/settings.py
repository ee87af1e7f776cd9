"""Everything that an installation may set: the environment (`HEADSUP_…`), then `headsup.toml`, then the defaults.

Read once, by `__main__` modules and the command line; everything else is handed values. Each field is explained in
`docs/headsup.toml`. A variable inside a section is written with two underscores: `HEADSUP_DETECTOR__WARN_BEFORE_HOURS`.
"""

import os
import tomllib
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from shared.events.stores import NewStores
from shared.events.topics import PARTITIONS
from shared.seal import Sealer
from shared.store.database import normalise_url
from shared.virtual import Setting, parse_clock

PREFIX: Final = "HEADSUP_"
CONFIG: Final = "HEADSUP_CONFIG"
"""Names another file than `headsup.toml` in the working directory."""


class BadSettings(ValueError):  # noqa: N818 - what it is, said plainly
    """The settings cannot be used; the text names every variable at fault, one a line, and never its value."""


def _bus(url: str) -> str:
    scheme, _, servers = url.partition("//")
    if url != "local:" and not (scheme == "kafka:" and all(s.strip() for s in servers.rstrip("/").split(","))):
        raise ValueError("write local: or kafka://host:port[,host:port]")
    return url


def _database(url: SecretStr) -> SecretStr:
    if url.get_secret_value():
        normalise_url(url.get_secret_value())
    return url


def _secret(secret: SecretStr) -> SecretStr:
    if secret.get_secret_value():
        Sealer.from_base64(secret.get_secret_value())
    return secret


def _api_key(key: SecretStr) -> SecretStr:
    if 0 < len(key.get_secret_value()) < 16:
        raise ValueError("a key has 16 characters or more; openssl rand -hex 24 makes one")
    return key


def _clock(text: str) -> str:
    parse_clock(text)
    return text


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


HOOK_SECRET: Final = 16
"""Characters that the secret part of a hook's path has at least."""

Hours = Annotated[float, Field(gt=0, le=24 * 90)]


class TopicSettings(_Section):
    """What `headsup topics apply` provisions. Replication is the cluster's own default."""

    partitions: Annotated[int, Field(ge=1, le=1000)] = PARTITIONS
    retention_hours: Annotated[int, Field(ge=1, le=24 * 3650)] = 24 * 14


class DetectorSettings(_Section):
    """The numbers of the detector's rules, in hours."""

    assumed_promise_hours: Hours = 48
    warn_before_hours: Hours = 12
    contact_within_hours: Hours = 2
    contact_after_payment_hours: Hours = 24
    fallback_hours: Hours = 48


Stage = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class DispatcherSettings(_Section):
    """The numbers of the dispatcher, in seconds where not said otherwise."""

    lease_seconds: Seconds = 60
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 32
    backoff_first_seconds: Seconds = 1
    backoff_longest_seconds: Seconds = 60
    account_pause_seconds: Seconds = 300
    patience_seconds: Seconds = 3600
    ramp_first: Annotated[int, Field(ge=0, le=100_000)] = 20
    ramp_stages: list[Stage] = [[100, 5], [500, 25]]


class ChannelsSettings(_Section):
    """Which channels there are. The sandbox is there by itself in embedded mode until another is."""

    sandbox: Literal["", "on", "off"] = ""
    assisted: bool = False


class KannelSettings(_Section):
    """SMS by a Kannel gateway; without `url` there is none."""

    url: str = ""
    username: str = ""
    password: SecretStr = SecretStr("")
    sender: str = ""
    smsc: str = ""
    callback_base: str = ""
    hook_secret: SecretStr = SecretStr("")
    admin_url: str = ""
    status_password: SecretStr = SecretStr("")
    timeout_seconds: Annotated[float, Field(gt=0, lt=20)] = 10


class BridgeSettings(_Section):
    """Chats by a bridge of the shop's own; without `url` there is none."""

    url: str = ""
    secret: SecretStr = SecretStr("")
    hook_secret: SecretStr = SecretStr("")
    allowed_hosts: list[str] = []
    kinds: list[Literal["dm", "chat"]] = ["dm", "chat"]
    timeout_seconds: Annotated[float, Field(gt=0, lt=20)] = 10

    @model_validator(mode="after")
    def _is_answered(self) -> "BridgeSettings":
        if self.url and len(self.hook_secret.get_secret_value()) < HOOK_SECRET:
            raise ValueError(
                f"hook_secret is needed with url, {HOOK_SECRET} characters or more: without it every reply"
                " of a customer would be lost; openssl rand -hex 24 makes one"
            )
        return self


class Settings(BaseSettings):
    """The settings of one process. Immutable; secrets stay out of `repr`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    bus: Annotated[str, AfterValidator(_bus)] = "local:"
    database: Annotated[SecretStr, AfterValidator(_database)] = SecretStr("")
    data: Path = Path(".headsup")
    secret: Annotated[SecretStr, AfterValidator(_secret)] = SecretStr("")
    api_key: Annotated[SecretStr, AfterValidator(_api_key)] = SecretStr("")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    clock: Annotated[str, AfterValidator(_clock)] = "system"
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    new_stores: Literal["", "hold", "live"] = ""
    horizon_days: Annotated[int, Field(ge=1, le=3650)] = 180
    ahead_minutes: Annotated[int, Field(ge=0, le=60 * 24 * 365)] = 60
    topics: TopicSettings = TopicSettings()
    detector: DetectorSettings = DetectorSettings()
    dispatcher: DispatcherSettings = DispatcherSettings()
    channels: ChannelsSettings = ChannelsSettings()
    kannel: KannelSettings = KannelSettings()
    bridge: BridgeSettings = BridgeSettings()

    @model_validator(mode="after")
    def _belong_together(self) -> "Settings":
        if not self.secret.get_secret_value() and (self.database.get_secret_value() or self.kafka):
            raise ValueError(
                "HEADSUP_SECRET is needed with HEADSUP_DATABASE or Kafka: 32 bytes as base64, the same in every"
                " process; head -c 32 /dev/urandom | base64 makes one"
            )
        if self.kafka and self.virtual is not None:
            raise ValueError("HEADSUP_CLOCK: a virtual clock is for embedded mode only, without Kafka (HEADSUP_BUS)")
        return self

    @property
    def kafka(self) -> bool:
        return self.bus.startswith("kafka://")

    @property
    def stores_begin(self) -> NewStores:
        """What holds for a store that nobody has set up: live in embedded mode, held in production."""
        if self.new_stores:
            return NewStores(self.new_stores)
        return NewStores.HOLD if self.kafka else NewStores.LIVE

    @property
    def sandbox(self) -> bool:
        """Whether the sandbox is a channel: where it is asked for, and in embedded mode while there is no other."""
        if self.channels.sandbox:
            return self.channels.sandbox == "on"
        return not (self.kafka or self.channels.assisted or self.kannel.url or self.bridge.url)

    @property
    def virtual(self) -> Setting | None:
        """How the virtual clock is to run; None for the machine's own clock."""
        return parse_clock(self.clock)

    @property
    def database_url(self) -> str:
        """Empty where Headsup runs its own PostgreSQL in the data folder."""
        return self.database.get_secret_value()

    @property
    def api_key_hash(self) -> str:
        """SHA-256 of the API key; empty where none is set."""
        key = self.api_key.get_secret_value()
        return sha256(key.encode()).hexdigest() if key else ""

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def horizon(self) -> timedelta:
        return timedelta(days=self.horizon_days)

    @property
    def ahead(self) -> timedelta:
        return timedelta(minutes=self.ahead_minutes)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())


def config_file() -> Path:
    """The file that is read where it exists."""
    return Path(os.environ.get(CONFIG) or "headsup.toml")


def load(**given: Any) -> Settings:
    """The settings, with what the command line gave (None: not given) above everything else. Raises `BadSettings`."""
    path = config_file()
    if os.environ.get(CONFIG) and not path.is_file():
        raise BadSettings(f"{CONFIG} names {path}, which is no file")
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise BadSettings("\n".join(_lines(error))) from None
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"{path} is no TOML: {error}") from None
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror}") from None


def unknown_variables() -> list[str]:
    """`HEADSUP_…` variables that no setting has: most likely a slip of the pen, for `doctor`."""
    known = {CONFIG, *(PREFIX + name.upper() for name in Settings.model_fields)}
    sections = tuple(
        PREFIX + name.upper() + "__" for name in ("topics", "detector", "dispatcher", "channels", "kannel", "bridge")
    )
    return sorted(v for v in os.environ if v.startswith(PREFIX) and v not in known and not v.startswith(sections))


def _lines(error: ValidationError) -> list[str]:
    lines = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        message = one["msg"].removeprefix("Value error, ")
        if one["type"] == "extra_forbidden":
            message = "there is no such setting; docs/headsup.toml shows all"
        path = [str(part) for part in one["loc"]]
        if not path:
            lines.append(message)
            continue
        lines.append(f"{PREFIX}{'__'.join(path).upper()} (or {'.'.join(path)} in {config_file()}): {message}")
    return lines
