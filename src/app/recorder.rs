//! The process's one recorder of metrics. The `metrics` facade knows only one per process, so it is
//! here, at the top, and nowhere else.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Installs the recorder, the first time, and gives what reads it. Whoever registers metrics before
/// counts into nothing.
pub(super) fn install() -> PrometheusHandle {
    static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
    let handle = INSTALLED.get_or_init(|| {
        let recorder = builder().build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("this process has a metrics recorder already: /metrics lacks counters");
        }
        handle
    });
    handle.clone()
}

/// Times that may be added up over several instances, in seconds: from less than a probe to more than
/// anybody should wait.
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

fn builder() -> PrometheusBuilder {
    match PrometheusBuilder::new().set_buckets(&BUCKETS) {
        Ok(builder) => builder,
        Err(error) => {
            tracing::warn!(%error, "times are told as summaries");
            PrometheusBuilder::new()
        }
    }
}
