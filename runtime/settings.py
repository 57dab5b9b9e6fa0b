"""Settings: one place that reads the environment (prefix `OMS_`).

The defaults point every part at the embedded stack. The same variables point any part at an outside Kafka
cluster (SASL, TLS) and ClickHouse server.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="OMS_", extra="ignore")

    data_dir: Path = Field(default=Path(".oms"), description="where the embedded stack keeps everything")
    topology: Path | None = Field(default=None, description="another topology.yaml than the one shipped")

    # Kafka
    kafka_bootstrap: str = "127.0.0.1:9092"
    kafka_security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    kafka_sasl_mechanism: str | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_ca_location: Path | None = None
    kafka_replication_factor: int = Field(default=1, ge=1, description="3 in production")
    kafka_partitions: int | None = Field(
        default=None, description="overrides topology.yaml's profile, first apply only"
    )

    # ClickHouse
    clickhouse_url: str = "http://127.0.0.1:8123"
    clickhouse_replica_url: str | None = Field(
        default=None, description="a second one with the same users, filled by the sink views-replica"
    )
    clickhouse_user: str = "default"
    clickhouse_password: SecretStr = SecretStr("")
    clickhouse_database: str = "oms"
    clickhouse_analyst_password: SecretStr = Field(default=SecretStr(""), description="of the read-only user `analyst`")

    # Gateway
    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(default=8080, ge=0, le=65535)
    gateway_role: Literal["command", "query", "all"] = Field(
        default="all", description="which requests it answers (gateway/roles.py)"
    )
    gateway_instance: str = Field(default="gateway-0", description="unique per gateway process; the reply address")
    jwt_key_file: Path | None = Field(default=None, description="HS256 key; default: made at first start in data_dir")
    jwks_url: str | None = Field(default=None, description="production: keys of the identity provider")
    jwt_audience: str = "oms"
    command_timeout: float = Field(default=5.0, gt=0, description="seconds a request waits for its outcome before 202")

    # Payment
    payment_url: str = "http://127.0.0.1:8090"
    payment_request_timeout: float = Field(default=5.0, gt=0, description="seconds; no answer within them is unknown")

    # Personal data
    key_store: Path | None = Field(default=None, description="SQLite file of customer keys; default: in data_dir")

    # Rules
    policy: Path | None = Field(default=None, description="a policy.yaml instead of the shipped defaults")

    time_scale: float = Field(default=1.0, gt=0, description="divides the policy's waits (Policy.scaled); demos only")

    # Warehouse and carrier
    logistics_url: str = "http://127.0.0.1:8091"
    webhook_secret: SecretStr = Field(default=SecretStr(""), description="HMAC key of webhooks coming in; empty: none")

    # The sandboxes of the embedded stack
    gateway_url: str = Field(default="http://127.0.0.1:8080", description="where they send their webhooks")
    logistics_public_url: str | None = Field(default=None, description="of tracking pages; default: logistics_url")
    sandbox_pace: float = Field(default=1.0, ge=0, description="seconds that a step of warehouse or carrier takes")
    sandbox_short_rate: float = Field(default=0, ge=0, le=1, description="share of parcels with a unit missing")
    sandbox_fail_rate: float = Field(default=0, ge=0, le=1, description="share of parcels that nobody takes at first")
    sandbox_lost_rate: float = Field(default=0, ge=0, le=1, description="share of parcels that the carrier loses")
    sandbox_seed: str = Field(default="", description="another seed, other parcels")

    # Messages to customers
    smtp_url: str | None = Field(default=None, description="smtp[s]://USER:PASSWORD@HOST:PORT; none: the outbox folder")
    outbox: Path | None = Field(default=None, description="where messages land without SMTP; default: in data_dir")
    mail_from: str = "orders@shop.example"
    webhooks_to_private: bool = Field(
        default=False, description="customers' webhooks may go to any address; tests only"
    )

    log_level: str = "INFO"
    slot: int = Field(default=0, ge=0, description="which of its instances this process is (0, 1, …)")

    @property
    def key_store_path(self) -> Path:
        return self.key_store or self.data_dir / "keys.sqlite"

    @property
    def jwt_key_path(self) -> Path:
        return self.jwt_key_file or self.data_dir / "jwt.key"

    def kafka_config(self) -> dict[str, Any]:
        """What every librdkafka client of ours gets: where the cluster is and how to get in."""
        config: dict[str, Any] = {
            "bootstrap.servers": self.kafka_bootstrap,
            "security.protocol": self.kafka_security_protocol,
        }
        if self.kafka_sasl_mechanism:
            config["sasl.mechanism"] = self.kafka_sasl_mechanism
            config["sasl.username"] = self.kafka_sasl_username
            if self.kafka_sasl_password is not None:
                config["sasl.password"] = self.kafka_sasl_password.get_secret_value()
        if self.kafka_ssl_ca_location is not None:
            config["ssl.ca.location"] = str(self.kafka_ssl_ca_location)
        return config


@lru_cache
def settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
