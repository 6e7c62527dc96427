"""extract-jobs itself, with its defaults: a full extract of the chosen columns."""

import os

from serve import Job, serve

from extract_jobs import ExtractSpec, extract


def run(job: Job) -> None:
    os.environ["FIDELITY_PASSWORD"] = job.password
    server = {
        "host": job.host, "port": job.port, "database": job.name, "user": job.user,
        "password_env": "FIDELITY_PASSWORD",
    }  # fmt: skip
    extract(
        ExtractSpec.model_validate(
            {
                "run_id": "fidelity",
                "source_name": "fidelity",
                "source_type": "mysql" if job.database == "mariadb" else job.database,
                "connection": {"path": job.name} if job.database == "sqlite" else server,
                "extract_table": job.table,
                "columns": {"include": job.selected},
                "target": {"uri": f"{job.folder}/lake"},
                "state_uri": f"{job.folder}/state",
                "report_uri": f"{job.folder}/report.json",
            }
            | job.options
        )
    )


serve(run)
