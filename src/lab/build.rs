//! From a description to a running lab.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinSet;

use super::cluster::{self, Extras, Identity, TlsFiles};
use super::guard::Guard;
use super::link::Network;
use super::node::{LabNode, WalSource};
use super::port::PortClaim;
use super::programs::Programs;
use super::{Distances, Lab, LabError, template};

/// What a [`Lab`] will consist of.
#[derive(Clone, Debug, Default)]
pub struct LabBuilder {
    primary: Option<String>,
    replicas: Vec<String>,
    distances: Distances,
    extras: Extras,
    origin: Origin,
}

#[derive(Clone, Copy, Debug, Default)]
enum Origin {
    #[default]
    Initialised,
    Copied,
}

impl LabBuilder {
    /// The primary stands in `region` and is named after it.
    pub fn primary(mut self, region: &str) -> LabBuilder {
        self.primary = Some(region.to_string());
        self
    }

    /// One more streaming replica in `region`, named after it; further nodes of one region are
    /// named `region-2`, `region-3`...
    pub fn replica(mut self, region: &str) -> LabBuilder {
        self.replicas.push(region.to_string());
        self
    }

    /// The distance between two regions, which need not have nodes. Clients of one reach nodes of
    /// the other (and of the same, if given twice the same) through a link with this round trip,
    /// zero included: such a link can be cut. Pairs that are not named have no link for clients
    /// and no delay for the WAL.
    pub fn round_trip(mut self, a: &str, b: &str, round_trip: Duration) -> LabBuilder {
        self.distances.set(a, b, round_trip);
        self
    }

    /// A line for every node's `postgresql.conf`, after the lab's own.
    pub fn setting(mut self, line: &str) -> LabBuilder {
        self.extras.settings.push(line.to_string());
        self
    }

    /// A line for every node's `pg_hba.conf`, before the lab's own, which ask for SCRAM.
    pub fn access_rule(mut self, line: &str) -> LabBuilder {
        self.extras.access_rules.push(line.to_string());
        self
    }

    /// Servers speak TLS with this certificate and key, PEM files that are copied.
    pub fn tls(mut self, certificate: &Path, key: &Path) -> LabBuilder {
        self.extras.tls = Some(TlsFiles {
            certificate: certificate.to_path_buf(),
            key: key.to_path_buf(),
        });
        self
    }

    /// Spares all but the process's first such lab the `initdb`. The price: these labs have the same
    /// system identifier, as if they were copies of one cluster.
    pub fn quick(mut self) -> LabBuilder {
        self.origin = Origin::Copied;
        self
    }

    /// Starts everything and returns once every replica streams. Takes a few seconds; dropping the
    /// future removes what there is so far.
    pub async fn build(self) -> Result<Lab, LabError> {
        let primary = self.primary.clone().ok_or(LabError::NoPrimary)?;
        let regions: Vec<String> = [primary].into_iter().chain(self.replicas.clone()).collect();
        for region in regions.iter().chain(self.distances.regions()) {
            check_name(region)?;
        }
        let programs = Arc::new(Programs::find()?);
        let (dir, guard) = make_directory(&programs)?;
        let network = Network::new()
            .map_err(|error| LabError::io("cannot start the thread of the links", error))?;
        let mut lab = Lab {
            nodes: Vec::new(),
            distances: self.distances.clone(),
            network,
            dir,
            _guard: guard,
        };
        let base = lab.dir.path();
        lab.nodes = self.place(base, &regions, &programs, &lab.network)?;
        self.make_directories(base, &lab.nodes, &programs).await?;
        start_all(&lab.nodes).await?;
        for replica in lab.nodes().skip(1) {
            lab.wait_caught_up(replica.name()).await?;
        }
        Ok(lab)
    }

    /// Names, ports and links; no process yet.
    fn place(
        &self,
        base: &Path,
        regions: &[String],
        programs: &Arc<Programs>,
        network: &Network,
    ) -> Result<Vec<Arc<LabNode>>, LabError> {
        let client_regions: BTreeSet<&String> = self.distances.regions().collect();
        let mut nodes: Vec<Arc<LabNode>> = Vec::new();
        for (region, name) in regions.iter().zip(names(regions)) {
            let port = PortClaim::new()?;
            let mut links = BTreeMap::new();
            for &client_region in &client_regions {
                if let Some(round_trip) = self.distances.between(client_region, region) {
                    let link = network.link(port.address(), round_trip)?;
                    links.insert(client_region.clone(), link);
                }
            }
            let wal = match nodes.first() {
                None => WalSource::Own,
                Some(primary) => {
                    let round_trip = self.distances.between(region, primary.region());
                    let target = primary.address();
                    WalSource::Stream {
                        link: network.link(target, round_trip.unwrap_or_default())?,
                        upstream: Mutex::new(primary.name().to_string()),
                    }
                }
            };
            nodes.push(Arc::new(LabNode {
                data: base.join(&name),
                log: base.join(format!("{name}.log")),
                name,
                region: region.clone(),
                port,
                programs: Arc::clone(programs),
                postmaster: tokio::sync::Mutex::new(None),
                links,
                wal,
            }));
        }
        Ok(nodes)
    }

    /// One directory from scratch, the others as its copies.
    async fn make_directories(
        &self,
        base: &Path,
        nodes: &[Arc<LabNode>],
        programs: &Arc<Programs>,
    ) -> Result<(), LabError> {
        let Some((primary, replicas)) = nodes.split_first() else {
            return Err(LabError::NoPrimary);
        };
        match self.origin {
            Origin::Initialised => cluster::initialise(programs, base, &primary.data).await?,
            Origin::Copied => template::copy_to(programs, base, &primary.data).await?,
        }
        cluster::configure(programs, base, &primary.data, &self.extras)?;
        let mut copies = JoinSet::new();
        for replica in replicas {
            let (programs, base) = (Arc::clone(programs), base.to_path_buf());
            let (from, to) = (primary.data.clone(), replica.data.clone());
            copies.spawn(async move { programs.copy(&from, &to, &base).await });
        }
        all(copies).await?;
        for node in nodes {
            let wal_port = match &node.wal {
                WalSource::Own => None,
                WalSource::Stream { link, .. } => Some(link.port()),
            };
            let identity = Identity {
                name: &node.name,
                port: node.port(),
                wal_port,
            };
            cluster::identify(programs, &node.data, &identity)?;
        }
        Ok(())
    }
}

/// A directory for one lab's files, its guard already on watch.
pub(super) fn make_directory(programs: &Programs) -> Result<(TempDir, Guard), LabError> {
    let dir = tempfile::Builder::new()
        .prefix("causeway-lab-")
        .tempdir()
        .map_err(|error| LabError::io("cannot make a temporary directory", error))?;
    programs.give(dir.path())?;
    let guard = Guard::over(dir.path())
        .map_err(|error| LabError::io("cannot start the guard (sh)", error))?;
    Ok((dir, guard))
}

async fn start_all(nodes: &[Arc<LabNode>]) -> Result<(), LabError> {
    let mut starts = JoinSet::new();
    for node in nodes {
        let node = Arc::clone(node);
        starts.spawn(async move { node.start().await });
    }
    all(starts).await
}

/// The first error, once all have ended.
async fn all(tasks: JoinSet<Result<(), LabError>>) -> Result<(), LabError> {
    tasks.join_all().await.into_iter().collect()
}

fn check_name(region: &str) -> Result<(), LabError> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !region.is_empty() && region.bytes().all(fits) {
        Ok(())
    } else {
        Err(LabError::Region(region.to_string()))
    }
}

fn names(regions: &[String]) -> Vec<String> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut name = |region| {
        let count = seen.entry(region).or_default();
        *count += 1;
        match *count {
            1 => region.to_string(),
            further => format!("{region}-{further}"),
        }
    };
    regions.iter().map(|region| name(region.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_one_region_are_numbered() {
        let regions = ["us", "eu", "us", "us"].map(String::from);
        assert_eq!(names(&regions), ["us", "eu", "us-2", "us-3"]);
    }

    #[test]
    fn a_region_must_be_fit_for_a_configuration_file() {
        assert!(check_name("ap-south-2").is_ok());
        for bad in ["", "it's", "eu west", "EU", "../x"] {
            assert!(matches!(check_name(bad), Err(LabError::Region(_))), "{bad}");
        }
    }

    #[test]
    fn a_distance_holds_in_both_directions() {
        let mut distances = Distances::default();
        distances.set("us", "eu", Duration::from_millis(80));
        assert_eq!(
            distances.between("eu", "us"),
            Some(Duration::from_millis(80))
        );
        assert_eq!(distances.between("us", "us"), None);
    }

    #[tokio::test]
    async fn a_lab_without_a_primary_is_refused() {
        let built = Lab::builder().replica("eu").build().await;
        assert!(matches!(built, Err(LabError::NoPrimary)));
    }
}
