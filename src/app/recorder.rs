//! The process's one recorder of metrics. The `metrics` facade knows only one per process, so it is
//! here, at the top, and nowhere else.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Installs the recorder, the first time, and gives what reads it. Whoever registers metrics before
/// counts into nothing.
pub(super) fn install() -> PrometheusHandle {
    static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
    let handle = INSTALLED.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("this process has a metrics recorder already: /metrics lacks counters");
        }
        handle
    });
    handle.clone()
}
