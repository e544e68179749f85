"""A checked document as a deploy takes it: code by digest, and what tells versions of its jobs and datasets apart."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from dispatcher.dag.fingerprint import dataset_fingerprints, fingerprints, version_keys
from dispatcher.dag.model import KnownDatasets, ResolvedDag
from traceapi.types.v1.dag_pb2 import DagSpec


@dataclass(frozen=True, slots=True)
class Deployable:
    """Everything about a DAG version but the identities that the database gives."""

    dag: ResolvedDag
    known: KnownDatasets
    bundles: Mapping[str, str]  # digests by local path
    spec: bytes  # DagSpec as it is stored, with the code by its digest
    digest: bytes  # of the document, and of the code and files that travel with it
    version_keys: Mapping[str, bytes]  # by job
    dataset_fingerprints: Mapping[str, bytes]  # by dataset that it produces

    @classmethod
    def of(cls, dag: ResolvedDag, spec: DagSpec, known: KnownDatasets, bundles: Mapping[str, str]) -> Self:
        """Takes a second for 2,000 jobs. `bundles` by local path, all of them. Raises MissingBundleError."""
        by_job = fingerprints(dag, known, bundles)
        stored = spec.SerializeToString(deterministic=True)
        travelling = "\n".join(f"{path}\t{digest}" for path, digest in sorted(bundles.items()))
        return cls(
            dag=dag,
            known=known,
            bundles=bundles,
            spec=stored,
            digest=hashlib.sha256(stored + b"\0" + travelling.encode()).digest(),
            version_keys=version_keys(dag, by_job),
            dataset_fingerprints=dataset_fingerprints(dag, by_job),
        )

    @property
    def name(self) -> str:
        """The DAG."""
        return self.dag.dag

    @property
    def foreign(self) -> Mapping[str, str]:
        """The datasets of other DAGs that it reads, with the versions by which it was checked and fingerprinted."""
        return {
            item.dataset_id: self.known[item.dataset_id].version_id
            for job in self.dag.jobs
            for item in job.inputs
            if item.dataset_id not in self.dataset_fingerprints
        }
