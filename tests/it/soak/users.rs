//! Who uses the Causeways, each for one promise, and what each is owed.
//!
//! The oracle is the value itself: it only rises. Whoever has been told of a value, or has seen it, may not be
//! shown less, unless the Causeway has said that it was lost in a failover.
//!
//! One thing PostgreSQL itself does not promise: a commit may show on a replica before it shows on the
//! primary, whose server has written the commit record and has yet to say so; with a synchronous standby
//! that is down, long before. So the primary owes what was seen on a replica only once the writer
//! has been told.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Error, SimpleQueryMessage};

use super::line::{Letter, Line, Sight, WAYS, Way, in_time};
use super::tally::Promise;
use super::trouble::LAG;
use super::world::{Ends, Level, Plan, World, beat};

const SESSIONS: i32 = 10;
const BEARERS: i32 = 6;
const KEYS: i32 = 2;
const MEMBERS: i32 = 3;

/// Sessions and bearers write one each, those of a key one together.
pub const REGISTERS: i32 = SESSIONS + BEARERS + KEYS;

/// Who writes so often in a row is not expected to read.
const STREAK: usize = 10;

/// How old what a reader sees may be.
const BOUNDS: [Duration; 3] = [
    Duration::from_millis(300),
    Duration::from_millis(1000),
    Duration::from_millis(3000),
];

/// All users, at work until the world is over.
pub fn start(world: &Arc<World>) -> JoinSet<()> {
    let mut users = JoinSet::new();
    users.spawn(beat(Arc::clone(world)));
    for own in 0..SESSIONS {
        users.spawn(session(Arc::clone(world), own));
    }
    for place in 0..BEARERS {
        users.spawn(bearer(Arc::clone(world), SESSIONS + place));
    }
    for key in 0..KEYS {
        let group = Arc::new(Group {
            key,
            register: SESSIONS + BEARERS + key,
            tried: AtomicI64::new(0),
            known: Mutex::default(),
        });
        for _ in 0..MEMBERS {
            users.spawn(member(Arc::clone(world), Arc::clone(&group)));
        }
    }
    for (proxy, bound) in [0, 1]
        .into_iter()
        .flat_map(|proxy| BOUNDS.map(|b| (proxy, b)))
    {
        users.spawn(bounded(Arc::clone(world), proxy, bound));
    }
    for proxy in [0, 1] {
        users.spawn(lingering(Arc::clone(world), proxy));
    }
    users
}

fn at(world: &World, level: &str) -> String {
    let level = match world.plan.level {
        Level::AsPromised => level,
        Level::Eventual => "eventual",
    };
    format!("SET causeway.consistency = '{level}'")
}

/// A draw among so many, of which no guard is kept.
fn draw(count: usize) -> usize {
    rand::rng().random_range(0..count)
}

/// One time in so many, as long as it takes lagging replicas to come to know all that one's own connection knows:
/// then nothing but what comes next, a token or a key keeps one from what is older than that.
async fn rest_one_time_in(times: usize) {
    if draw(times) == 0 {
        sleep(2 * LAG).await;
    }
}

/// What is owed of a register to whoever knows `known` of it.
fn owed(sight: &Sight, known: i64, told_before: i64) -> i64 {
    match sight.on_replica {
        true => known,
        false => known.min(told_before),
    }
}

/// Whether this write ends its own server.
fn is_doomed(world: &World) -> bool {
    match world.doom.load(Ordering::Relaxed) {
        0 => false,
        one_in => rand::rng().random_range(0..one_in) == 0,
    }
}

/// Writes a register of its own, reads it back, and watches another's.
async fn session(world: Arc<World>, own: i32) {
    let settings = at(&world, "session");
    let proxy = own as usize % 2;
    let watched = (own + 1) % SESSIONS;
    let mut line = Line::open(&world, proxy, &settings).await;
    let mut user = SessionUser::default();
    let mut round = 0;
    while !world.is_over() {
        round += 1;
        rest_one_time_in(200).await;
        if let Err((deed, error)) = user.round(&world, &line, [own, watched], round).await
            && !line.recovers(&world, deed, error).await
        {
            line = Line::open(&world, proxy, &settings).await;
            user.known = Known::default();
        }
    }
}

#[derive(Default)]
struct SessionUser {
    known: Known,
    /// The greatest value that it has tried to write.
    tried: i64,
}

#[derive(Default)]
struct Known {
    own: i64,
    watched: i64,
    watched_on_primary: i64,
}

impl SessionUser {
    /// A write, or now and then many, a read, and sometimes one more; all combinations of ways come in turn.
    async fn round(
        &mut self,
        world: &World,
        line: &Line,
        registers: [i32; 2],
        round: u64,
    ) -> Result<(), (&'static str, Error)> {
        let way = |divisor: u64| WAYS[(round / divisor % 4) as usize];
        let writes = if round.is_multiple_of(25) { STREAK } else { 1 };
        for _ in 0..writes {
            if let Some(_writing) = world.writes.begin() {
                self.write(world, line, registers[0], way(1))
                    .await
                    .map_err(|e| ("write", e))?;
            }
        }
        self.read(world, line, registers, way(4))
            .await
            .map_err(|e| ("read", e))?;
        if (round / 64).is_multiple_of(2) {
            self.read(world, line, registers, way(16))
                .await
                .map_err(|e| ("read", e))?;
        }
        Ok(())
    }

    async fn write(&mut self, world: &World, line: &Line, own: i32, way: Way) -> Result<(), Error> {
        self.tried += 1;
        let (value, doomed) = (self.tried, is_doomed(world));
        let within = line.write(way, own, value, doomed).await?;
        if line.heard_of_loss(world) {
            self.known = Known::default();
        }
        if let Some(sight) = within {
            world
                .tally
                .check(Promise::OwnWrites, sight.of(own) == value, || {
                    format!("{own}: {sight:?} in the transaction that wrote {value}")
                });
        }
        if doomed {
            world.tally.doomed.fetch_add(1, Ordering::Relaxed);
        }
        self.known.own = value;
        world.tell(own, value);
        Ok(())
    }

    async fn read(
        &mut self,
        world: &World,
        line: &Line,
        [own, watched]: [i32; 2],
        way: Way,
    ) -> Result<(), Error> {
        let told = world.told(watched);
        let sight = line.read(way, "", own, watched).await?;
        if line.heard_of_loss(world) {
            self.known = Known::default();
        }
        world.tally.answered_by(&sight.node);
        let (tried, at_least) = (self.tried, self.known.own);
        let seen = sight.of(own);
        world.tally.check(
            Promise::OwnWrites,
            (at_least..=tried).contains(&seen),
            || format!("session {own}, {way:?}: {sight:?}, known are {at_least} to {tried}"),
        );
        let known = owed(&sight, self.known.watched, told);
        let at_least = known.max(match sight.on_replica {
            true => 0,
            false => self.known.watched_on_primary,
        });
        let seen = sight.of(watched);
        world.tally.check(Promise::Monotonic, seen >= at_least, || {
            format!("session {own}, {way:?}: {sight:?} of {watched} after {at_least}")
        });
        self.known.own = self.known.own.max(sight.of(own));
        self.known.watched = self.known.watched.max(seen);
        if !sight.on_replica {
            self.known.watched_on_primary = self.known.watched_on_primary.max(seen);
        }
        Ok(())
    }
}

/// Hops between the Causeways on connections that may be anybody's, carries a token, and now and
/// then takes over another's with what that one knew.
async fn bearer(world: Arc<World>, own: i32) {
    let settings = at(&world, "causal");
    let mut lines = [
        Line::open(&world, 0, &settings).await,
        Line::open(&world, 1, &settings).await,
    ];
    let mut known = Letter {
        token: String::new(),
        known: vec![0; world.registers() as usize],
    };
    let mut round = 0_u64;
    while !world.is_over() {
        round += 1;
        rest_one_time_in(50).await;
        let place = draw(2);
        if draw(50) == 0 {
            // The pool has opened a new one.
            lines[place] = Line::open(&world, place, &settings).await;
        }
        let line = &mut lines[place];
        // A step that fails has told nothing that a token stands for.
        match carry(&world, line, own, known.clone(), round).await {
            Ok(after) => {
                known = after;
                let mut letters = world.letters.lock().unwrap();
                letters.push_back(known.clone());
                if letters.len() > 64 {
                    letters.pop_front();
                }
            }
            Err((deed, error)) => {
                if !line.recovers(&world, deed, error).await {
                    *line = Line::open(&world, place, &settings).await;
                }
            }
        }
    }
}

/// One statement between a token that is presented and the one that is taken along.
async fn carry(
    world: &World,
    line: &Line,
    own: i32,
    mut mine: Letter,
    round: u64,
) -> Result<Letter, (&'static str, Error)> {
    let failed = |deed| move |error| (deed, error);
    // Tokens of before are of no account to what is known from now on.
    if line.heard_of_loss(world) {
        mine.known.fill(0);
    }
    if round.is_multiple_of(4) {
        let letter = world.letters.lock().unwrap().pop_front();
        if let Some(theirs) = letter {
            let set = format!("SET causeway.token = '{}'", theirs.token);
            line.command(&set).await.map_err(failed("token"))?;
            if !line.heard_of_loss(world) {
                for (mine, theirs) in mine.known.iter_mut().zip(&theirs.known) {
                    *mine = (*mine).max(*theirs);
                }
            }
        }
    }
    let writing = match round.is_multiple_of(3) {
        true => world.writes.begin(),
        false => None,
    };
    let in_comment = writing.is_none() && round.is_multiple_of(2);
    let hint = match in_comment && !mine.token.is_empty() {
        true => format!("/* causeway.token='{}' */ ", mine.token),
        false => String::new(),
    };
    if hint.is_empty() {
        let set = format!("SET causeway.token = '{}'", mine.token);
        line.command(&set).await.map_err(failed("token"))?;
    }
    if writing.is_some() {
        let value = world.told(own) + 1;
        let value = value.max(mine.known[own as usize] + 1);
        line.write(WAYS[draw(4)], own, value, false)
            .await
            .map_err(failed("write"))?;
        world.tell(own, value);
        if line.heard_of_loss(world) {
            mine.known.fill(0);
        }
        mine.known[own as usize] = value;
    } else {
        let register = draw(world.registers() as usize) as i32;
        let told = world.told(register);
        let way = match hint.is_empty() {
            true => WAYS[draw(4)],
            false => Way::Simple,
        };
        let sight = line.read(way, &hint, register, register).await;
        let sight = sight.map_err(failed("read"))?;
        if line.heard_of_loss(world) {
            mine.known.fill(0);
        }
        let known = &mut mine.known[register as usize];
        let (seen, at_least) = (sight.of(register), owed(&sight, *known, told));
        world.tally.check(Promise::ByToken, seen >= at_least, || {
            format!(
                "bearer {own}, {way:?}: {sight:?} of {register} after {at_least}, token {}",
                mine.token
            )
        });
        *known = (*known).max(seen);
    }
    drop(writing);
    mine.token = line
        .cell("SHOW causeway.token")
        .await
        .map_err(failed("token"))?;
    if line.heard_of_loss(world) {
        mine.known.fill(0);
    }
    Ok(mine)
}

/// Who shares a key, on one Causeway.
struct Group {
    key: i32,
    register: i32,
    tried: AtomicI64,
    known: Mutex<Shared>,
}

/// What any of them has been shown by the Causeway of this epoch: a new one knows of no keys.
#[derive(Clone, Copy, Default)]
struct Shared {
    epoch: u64,
    /// How often a failover has lost what they knew.
    losses: u64,
    value: i64,
}

impl Group {
    fn known(&self, epoch: u64) -> Shared {
        let mut known = self.known.lock().unwrap();
        if known.epoch < epoch {
            *known = Shared {
                epoch,
                ..Shared::default()
            };
        }
        *known
    }

    fn learn(&self, epoch: u64, value: i64) {
        let mut known = self.known.lock().unwrap();
        if known.epoch == epoch {
            known.value = known.value.max(value);
        }
    }

    fn lose(&self) {
        let mut known = self.known.lock().unwrap();
        known.losses += 1;
        known.value = 0;
    }
}

/// The loss of what is known under a key is told to one of those who share it, and may reach that one
/// later than another sees the lack of it. Where violations are wanted, each takes so long.
fn hearsay(plan: Plan) -> Duration {
    match plan.ends {
        Ends::AfterTheScenes => Duration::from_secs(20),
        Ends::AtTheFirstViolation | Ends::Never => Duration::from_secs(2),
    }
}

async fn member(world: Arc<World>, group: Arc<Group>) {
    let proxy = group.key as usize % 2;
    let settings = format!(
        "{}; SET causeway.session_key = 'user:{}'",
        at(&world, "causal"),
        group.key
    );
    let mut line = Line::open(&world, proxy, &settings).await;
    while !world.is_over() {
        rest_one_time_in(50).await;
        if let Err((deed, error)) = share(&world, &line, &group).await
            && !line.recovers(&world, deed, error).await
        {
            line = Line::open(&world, proxy, &settings).await;
        }
    }
}

async fn share(world: &World, line: &Line, group: &Group) -> Result<(), (&'static str, Error)> {
    let register = group.register;
    // Where writes are counted none may wait for another's lock: of those that share a register, nobody writes.
    if draw(4) == 0
        && world.writes.are_free()
        && let Some(_writing) = world.writes.begin()
    {
        let value = group.tried.fetch_add(1, Ordering::SeqCst) + 1;
        let written = line.write(WAYS[draw(4)], register, value, false).await;
        if line.heard_of_loss(world) {
            group.lose();
        }
        written.map_err(|error| ("write", error))?;
        world.tell(register, value);
        group.learn(line.epoch, value);
        return Ok(());
    }
    let (before, told) = (group.known(line.epoch), world.told(register));
    let way = WAYS[draw(4)];
    let sight = line.read(way, "", register, register).await;
    if line.heard_of_loss(world) {
        group.lose();
    }
    let sight = sight.map_err(|error| ("read", error))?;
    let (seen, at_least) = (sight.of(register), owed(&sight, before.value, told));
    // Another of them may have been told of a loss meanwhile, or have gone on to a new Causeway.
    let mut now = group.known(line.epoch);
    let deadline = Instant::now() + hearsay(world.plan);
    while seen < at_least && now.losses == before.losses && Instant::now() < deadline {
        sleep(Duration::from_millis(5)).await;
        now = group.known(line.epoch);
    }
    if (now.epoch, now.losses) == (before.epoch, before.losses) && before.epoch == line.epoch {
        world.tally.check(Promise::ByKey, seen >= at_least, || {
            format!("key {}, {way:?}: {sight:?} after {at_least}", group.key)
        });
        group.learn(line.epoch, seen);
    }
    Ok(())
}

/// Reads the heartbeat, not older than `bound`.
async fn bounded(world: Arc<World>, proxy: usize, bound: Duration) {
    const READ: &str = "SELECT beat, current_setting('cluster_name') FROM heartbeat";
    let limit = match world.plan.level {
        Level::AsPromised => format!("{}ms", bound.as_millis()),
        Level::Eventual => "10min".to_owned(),
    };
    let settings =
        format!("SET causeway.consistency = 'eventual'; SET causeway.max_staleness = '{limit}'");
    let hint =
        format!("/* causeway.consistency='eventual', causeway.max_staleness='{limit}' */ {READ}");
    let mut line = Line::open(&world, proxy, &settings).await;
    while !world.is_over() {
        let text = match draw(2) {
            0 => READ,
            _ => &hint,
        };
        let (age, asked_at) = (world.truth.lock().unwrap().age, Instant::now());
        match in_time(line.client.simple_query(text)).await {
            Ok(answer) => {
                let row = answer.iter().find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some(row),
                    _ => None,
                });
                let row = row.expect("a heartbeat");
                let (beat, node) = (row.get(0).unwrap(), row.get(1).unwrap());
                let beat: i64 = beat.parse().unwrap();
                let owed = {
                    let truth = world.truth.lock().unwrap();
                    let settled = truth.age == age && age.is_multiple_of(2);
                    settled.then(|| (truth.owed(asked_at, bound), truth.newest()))
                };
                if let Some((owed, newest)) = owed {
                    world.tally.check(Promise::Staleness, beat >= owed, || {
                        format!("{bound:?}: {beat} on {node}, {owed} was old enough, {newest} is the newest")
                    });
                }
            }
            Err(error) => {
                if !line.recovers(&world, "bounded read", error).await {
                    line = Line::open(&world, proxy, &settings).await;
                }
            }
        }
    }
}

/// Stays in READ ONLY transactions for a while, so that there is something for replay to conflict with.
async fn lingering(world: Arc<World>, proxy: usize) {
    let settings = at(&world, "session");
    let mut line = Line::open(&world, proxy, &settings).await;
    let mut known = 0;
    while !world.is_over() {
        let register = 0;
        match linger(&world, &line, register, known).await {
            Ok(seen) => known = seen,
            Err(error) => {
                if !line.recovers(&world, "READ ONLY transaction", error).await {
                    line = Line::open(&world, proxy, &settings).await;
                    known = 0;
                }
            }
        }
    }
}

async fn linger(world: &World, line: &Line, register: i32, known: i64) -> Result<i64, Error> {
    let told = world.told(register);
    line.command("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    let first = line.read_unnamed(register, register).await?;
    let known = match line.heard_of_loss(world) {
        true => 0,
        false => known,
    };
    line.command("SELECT pg_sleep(0.01)").await?;
    let second = line.read_unnamed(register, register).await?;
    line.command("COMMIT").await?;
    let at_least = owed(&first, known, told);
    world
        .tally
        .check(Promise::Monotonic, first.of(register) >= at_least, || {
            format!("READ ONLY transaction: {first:?} after {at_least}")
        });
    let same = first.of(register) == second.of(register);
    world.tally.check(Promise::Monotonic, same, || {
        format!("one snapshot: {first:?}, then {second:?}")
    });
    Ok(known.max(first.of(register)))
}
