//! The demo is a promise in public: it must hold it every time.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use causeway::lab::demo::{self, DemoOptions};

/// A success says: every region's reads were answered, none was stale, nothing failed.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_well() -> Result<()> {
    let options = DemoOptions {
        once: true,
        workload: Duration::from_secs(10),
    };
    assert_eq!(demo::run(options).await?, ExitCode::SUCCESS);
    Ok(())
}
