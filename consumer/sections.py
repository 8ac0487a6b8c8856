"""What a section of the settings is, and the section of `seenit serve`."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServeSettings(Section):
    host: str = Field(
        default="127.0.0.1", description="Address that `seenit serve` listens on. Beyond loopback it needs keys."
    )
    port: int = Field(default=8080, ge=0, le=65_535, description="Its port. 0: any free one.")
    max_look_ups: int = Field(
        default=64, ge=1, description="Pictures that are looked up at once; whoever asks for more is told to wait."
    )
    requests_per_s: float = Field(
        default=50.0,
        gt=0,
        description="Requests a second of one key, beyond which it is told to wait, unless its own "
        "line in the file of keys says otherwise.",
    )
    session_secret: SecretStr = Field(
        default=SecretStr(""),
        description="Signs the sessions of people who look at the page; the same for all `seenit serve` behind one "
        "address. Empty: a random one for each process.",
    )
    thumbnails: str = Field(
        default="",
        description="Where small copies of all uploads are kept for the page, `s3://BUCKET/FOLDER`, so that pictures "
        "are seen whose address has expired. Empty: nowhere. A rule of the bucket has to expire them.",
    )
    keys_file: Path | None = Field(
        default=None,
        description="TOML file with the hashes of keys, their scopes and tenants, as `seenit key` writes "
        "them. Without it and without a provider, whoever is on this machine may do everything.",
    )
    oidc_issuer: str = Field(
        default="", description="OpenID provider whose access tokens are taken as keys are, `https://...`. Empty: none."
    )
    oidc_audience: str = Field(default="", description="Whom these tokens have to be meant for: their claim `aud`.")
    oidc_client_id: str = Field(
        default="",
        description="Who this service is at the provider, so that people sign in to the page there. Empty: "
        "they paste a key or a token.",
    )
    oidc_client_secret: SecretStr = Field(
        default=SecretStr(""), description="Its secret there, if it has one; PKCE is used either way."
    )
    oidc_request: str = Field(
        default="openid",
        description="Scopes that the provider is asked for; those whose ID token has the claims below.",
    )
    public_url: str = Field(
        default="",
        description="Address of the page for people, `https://...`; the provider sends them back to "
        "`/sign-in/back` there.",
    )
    oidc_scopes_claim: str = Field(
        default="scope",
        description="Their claim with the scopes `read`, `review` and `admin`, or `seenit:read` and so "
        "on: a list, or words with spaces between.",
    )
    oidc_tenants_claim: str = Field(
        default="tenants", description="Their claim with the tenants, in the same form; `*` for all."
    )
