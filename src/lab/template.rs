//! A cluster that is initialised once per process and then copied: `initdb` is most of a small
//! lab's start.
//!
//! It is the one thing that labs share, so it outlives them; its guard removes it when the process
//! ends. It never runs.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::guard::Guard;
use super::programs::Programs;
use super::{LabError, cluster, make_directory};

static TEMPLATE: OnceCell<Template> = OnceCell::const_new();

struct Template {
    data: PathBuf,
    /// A static is never dropped: the guard removes the directory.
    _dir: TempDir,
    _guard: Guard,
}

/// Puts a copy of the template at `data`, below `base`.
pub(super) async fn copy_to(programs: &Programs, base: &Path, data: &Path) -> Result<(), LabError> {
    let template = TEMPLATE.get_or_try_init(|| Template::new(programs)).await?;
    programs.copy(&template.data, data, base).await
}

impl Template {
    async fn new(programs: &Programs) -> Result<Template, LabError> {
        let (dir, guard) = make_directory(programs)?;
        let data = dir.path().join("template");
        cluster::initialise(programs, dir.path(), &data).await?;
        Ok(Template {
            data,
            _dir: dir,
            _guard: guard,
        })
    }
}
