"""Machines, Postgres, and the monitoring itself."""

from __future__ import annotations

from grafana.parts import Board, graph, number

__all__ = ["board"]


def board() -> Board:
    """The dashboard `Slipway: system`."""
    return (
        Board("system", "system", "Disks, machine, Postgres, gateway, and the monitoring itself.", by_model=False)
        .row("Now", *_now())
        .row("Machine (node exporter)", *_machine())
        .row("Postgres (Postgres exporter)", *_postgres())
        .row("Monitoring", *_monitoring())
    )


def _now() -> list[object]:
    return [
        number("Answering", ("count(up == 1)", "targets"), width=4, about="Targets that answer Prometheus."),
        number(
            "Not answering",
            ("count(up == 0) or vector(0)", "targets"),
            limits=[(1, "red")],
            width=4,
            about="Targets that should answer Prometheus and do not.",
        ),
        number(
            "Free disk",
            ("min(storage_free_bytes / storage_size_bytes)", "least"),
            unit="percentunit",
            width=4,
            good="red",
            limits=[(0.05, "orange"), (0.15, "green")],
            about="Where Slipway's home and lake lie. Alerts fire below 15 and 5 %.",
        ),
        graph(
            "Disk",
            ("storage_free_bytes", "{{folder}} free"),
            ("storage_size_bytes", "{{folder}} size"),
            unit="bytes",
            width=6,
            about="As the keeper sees it.",
        ),
        graph(
            "Gateway",
            ("envoy_server_memory_allocated", "memory"),
            unit="bytes",
            width=6,
            about="Envoy's memory.",
        ),
    ]


def _machine() -> list[object]:
    busy = 'rate(node_cpu_seconds_total{mode!="idle"}[$__rate_interval])'
    return [
        graph("Processors", (f"sum by (mode) ({busy})", "{{mode}}"), stacked=True, width=6, about="Busy processors."),
        graph(
            "Memory",
            ("node_memory_MemTotal_bytes - node_memory_MemAvailable_bytes", "used"),
            ("node_memory_MemTotal_bytes", "there"),
            unit="bytes",
            width=6,
            about="Memory that is no cache.",
        ),
        graph(
            "Disk traffic",
            ("sum(rate(node_disk_read_bytes_total[$__rate_interval]))", "read"),
            ("sum(rate(node_disk_written_bytes_total[$__rate_interval]))", "written"),
            unit="Bps",
            width=6,
            about="Of all disks.",
        ),
        graph(
            "Network",
            ('sum(rate(node_network_receive_bytes_total{device!="lo"}[$__rate_interval]))', "received"),
            ('sum(rate(node_network_transmit_bytes_total{device!="lo"}[$__rate_interval]))', "sent"),
            unit="Bps",
            width=6,
            about="Without the machine's traffic with itself.",
        ),
    ]


def _postgres() -> list[object]:
    return [
        number("Postgres", ("pg_up", "up"), width=4, good="red", limits=[(1, "green")], about="1: it answers."),
        graph(
            "Connections",
            ("sum by (datname) (pg_stat_activity_count)", "{{datname}}"),
            width=6,
            about="By database: slipway, airflow, mlflow.",
        ),
        graph(
            "Transactions",
            ("sum by (datname) (rate(pg_stat_database_xact_commit[$__rate_interval]))", "{{datname}}"),
            width=7,
            about="Committed, a second.",
        ),
        graph(
            "Size", ("pg_database_size_bytes", "{{datname}}"), unit="bytes", width=7, about="Of each database on disk."
        ),
    ]


def _monitoring() -> list[object]:
    return [
        graph(
            "Time to scrape",
            ("max by (job) (scrape_duration_seconds)", "{{job}}"),
            unit="s",
            width=6,
            about="The slowest target of each job.",
        ),
        graph("Series", ("prometheus_tsdb_head_series", "series"), width=6, about="That Prometheus holds in memory."),
        graph(
            "Rules",
            ("max(prometheus_rule_group_last_duration_seconds)", "slowest group"),
            unit="s",
            width=6,
            about="Time to evaluate a group of rules.",
        ),
        graph(
            "Notifications",
            ("sum(rate(alertmanager_notifications_total[$__rate_interval]))", "sent"),
            ("sum(rate(alertmanager_notifications_failed_total[$__rate_interval]))", "failed"),
            width=6,
            about="Of Alertmanager to its receivers, a second.",
        ),
    ]
