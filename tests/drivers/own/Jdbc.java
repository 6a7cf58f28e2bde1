// JDBC (pgjdbc) against DATABASE_URL. Each case opens its own connections and owns its own tables.

import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.net.URI;
import java.sql.Array;
import java.sql.BatchUpdateException;
import java.sql.CallableStatement;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;
import org.postgresql.util.PSQLException;

class Jdbc {
    static final int LIMIT_SECONDS = 60;
    static URI address;

    interface Body {
        void run(Connection connection) throws Exception;
    }

    static class Failure extends Exception {
        Failure(String message) {
            super(message);
        }
    }

    public static void main(String[] arguments) throws Exception {
        String given = arguments.length > 0 ? arguments[0] : System.getenv("DATABASE_URL");
        address = URI.create(given);
        List<String> wanted = Arrays.asList(arguments).subList(Math.min(1, arguments.length), arguments.length);
        ExecutorService runner = Executors.newCachedThreadPool(task -> {
            Thread thread = new Thread(task);
            // A case that hangs must not keep the process.
            thread.setDaemon(true);
            return thread;
        });
        int failed = 0;
        for (Map.Entry<String, Callable<Void>> entry : cases().entrySet()) {
            if (!wanted.isEmpty() && !wanted.contains(entry.getKey())) {
                continue;
            }
            long began = System.nanoTime();
            Future<Void> outcome = runner.submit(entry.getValue());
            String told;
            try {
                outcome.get(LIMIT_SECONDS, TimeUnit.SECONDS);
                told = "pass\t" + String.format("%.2f s", (System.nanoTime() - began) / 1e9);
            } catch (ExecutionException error) {
                failed++;
                told = "FAIL\t" + error.getCause().toString().replaceAll("\\s+", " ");
            } catch (TimeoutException error) {
                failed++;
                told = "FAIL\tno end within " + LIMIT_SECONDS + " s";
            }
            System.out.println("jdbc\t" + entry.getKey() + "\t" + told);
        }
        System.exit(failed == 0 ? 0 : 1);
    }

    static Map<String, Callable<Void>> cases() {
        Map<String, Callable<Void>> cases = new LinkedHashMap<>();
        add(cases, "connects", Jdbc::connects);
        add(cases, "reads_its_writes", Jdbc::readsItsWrites);
        add(cases, "parameters_of_many_types", Jdbc::parametersOfManyTypes);
        add(cases, "rows_fetched_in_portions", Jdbc::rowsFetchedInPortions);
        add(cases, "batches", Jdbc::batches);
        add(cases, "batches_rewritten", Jdbc::batchesRewritten, "reWriteBatchedInserts", "true");
        add(cases, "a_batch_with_an_error_in_the_middle", Jdbc::batchWithAnError);
        add(cases, "generated_keys", Jdbc::generatedKeys);
        add(cases, "savepoints", Jdbc::savepoints);
        add(cases, "errors_undone_one_by_one", Jdbc::errorsUndoneOneByOne, "autosave", "always");
        add(cases, "isolation_and_read_only", Jdbc::isolationAndReadOnly);
        add(cases, "copy_both_ways", Jdbc::copyBothWays);
        add(cases, "notifications", Jdbc::notifications);
        add(cases, "cancels", Jdbc::cancels);
        add(cases, "large_objects", Jdbc::largeObjects);
        add(cases, "functions_and_cursors", Jdbc::functionsAndCursors);
        add(cases, "metadata", Jdbc::metadata);
        add(cases, "a_table_that_changes_under_a_statement", Jdbc::changedTable);
        add(cases, "a_search_path_of_its_own", Jdbc::searchPath);
        add(cases, "more_statements_than_are_kept", Jdbc::manyStatements, "prepareThreshold", "1",
                "preparedStatementCacheQueries", "20");
        add(cases, "simple_queries_only", Jdbc::readsItsWrites, "preferQueryMode", "simple");
        add(cases, "extended_queries_without_names", Jdbc::readsItsWrites, "prepareThreshold", "0");
        add(cases, "extended_for_prepared_only", Jdbc::readsItsWrites, "preferQueryMode", "extendedForPrepared");
        add(cases, "all_cached", Jdbc::readsItsWrites, "preferQueryMode", "extendedCacheEverything");
        add(cases, "several_statements_in_one", Jdbc::severalStatements);
        return cases;
    }

    static void add(Map<String, Callable<Void>> cases, String name, Body body, String... options) {
        cases.put(name, () -> {
            try (Connection connection = connect(options)) {
                body.run(connection);
            }
            return null;
        });
    }

    static Connection connect(String... options) throws SQLException {
        String[] credentials = address.getUserInfo().split(":", 2);
        Properties properties = new Properties();
        properties.setProperty("user", credentials[0]);
        properties.setProperty("password", credentials.length > 1 ? credentials[1] : "");
        properties.setProperty("connectTimeout", "20");
        for (int at = 0; at < options.length; at += 2) {
            properties.setProperty(options[at], options[at + 1]);
        }
        String url = "jdbc:postgresql://" + address.getHost() + ":" + address.getPort() + address.getPath();
        return DriverManager.getConnection(url, properties);
    }

    static void check(boolean holds, String what) throws Failure {
        if (!holds) {
            throw new Failure(what);
        }
    }

    static void equal(Object got, Object wanted, String what) throws Failure {
        check(java.util.Objects.equals(got, wanted), what + ": got " + got + ", wanted " + wanted);
    }

    interface Attempt {
        void run() throws Exception;
    }

    static SQLException raises(String state, String what, Attempt attempt) throws Exception {
        try {
            attempt.run();
        } catch (SQLException error) {
            equal(error.getSQLState(), state, what + " (" + error.getMessage() + ")");
            return error;
        }
        throw new Failure(what + ": no error, wanted SQLSTATE " + state);
    }

    static void execute(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    static String table(Connection connection, String name, String columns) throws SQLException {
        String table = "drivers_jdbc_" + name;
        execute(connection, "DROP TABLE IF EXISTS " + table);
        execute(connection, "CREATE TABLE " + table + " (" + columns + ")");
        return table;
    }

    static Object one(Connection connection, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            return one(statement, values);
        }
    }

    static Object one(PreparedStatement statement, Object... values) throws SQLException {
        for (int at = 0; at < values.length; at++) {
            statement.setObject(at + 1, values[at]);
        }
        try (ResultSet rows = statement.executeQuery()) {
            return rows.next() ? rows.getObject(1) : null;
        }
    }

    static long count(Connection connection, String table) throws SQLException {
        return (Long) one(connection, "SELECT count(*) FROM " + table);
    }

    static void connects(Connection connection) throws Exception {
        equal(one(connection, "SELECT 1"), 1, "SELECT 1");
        check(connection.isValid(5), "it is valid");
        check(connection.getMetaData().getDatabaseMajorVersion() >= 14, "the server's version");
    }

    /** The driver prepares a statement on the server when it has been run five times. */
    static void readsItsWrites(Connection connection) throws Exception {
        String table = table(connection, "ryw", "id int PRIMARY KEY, note text");
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO " + table + " VALUES (?, ?)");
                PreparedStatement update = connection.prepareStatement("UPDATE " + table + " SET note = ? WHERE id = ?");
                PreparedStatement select = connection.prepareStatement("SELECT note FROM " + table + " WHERE id = ?")) {
            for (int id = 0; id < 200; id++) {
                insert.setInt(1, id);
                insert.setString(2, "note " + id);
                equal(insert.executeUpdate(), 1, "rows inserted");
                equal(one(select, id), "note " + id, "own insert");
                update.setString(1, "changed");
                update.setInt(2, id);
                equal(update.executeUpdate(), 1, "rows updated");
                equal(one(select, id), "changed", "own update");
            }
        }
    }

    static void parametersOfManyTypes(Connection connection) throws Exception {
        OffsetDateTime moment = OffsetDateTime.of(2024, 2, 29, 12, 30, 0, 0, ZoneOffset.UTC);
        Array numbers = connection.createArrayOf("int4", new Integer[] {1, 2, null});
        String sql = "SELECT ?::int4, ?::int8, ?::float8, ?::numeric, ?::text, ?::bool, ?::timestamptz, ?::bytea, ?::int4[], ?::text";
        // Text first, and binary when the driver has got to know the types.
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int round = 0; round < 12; round++) {
                statement.setInt(1, 7);
                statement.setLong(2, 1L << 40);
                statement.setDouble(3, 1.5);
                statement.setBigDecimal(4, new BigDecimal("12.3400"));
                statement.setString(5, "text 'quoted' \\ %");
                statement.setBoolean(6, true);
                statement.setObject(7, moment);
                statement.setBytes(8, new byte[] {0, 1, (byte) 255});
                statement.setArray(9, numbers);
                statement.setNull(10, Types.VARCHAR);
                try (ResultSet row = statement.executeQuery()) {
                    check(row.next(), "a row");
                    equal(row.getInt(1), 7, "int4");
                    equal(row.getLong(2), 1L << 40, "int8");
                    equal(row.getDouble(3), 1.5, "float8");
                    equal(row.getBigDecimal(4), new BigDecimal("12.3400"), "numeric");
                    equal(row.getString(5), "text 'quoted' \\ %", "text");
                    equal(row.getBoolean(6), true, "bool");
                    equal(row.getObject(7, OffsetDateTime.class).toInstant(), moment.toInstant(), "timestamptz");
                    check(Arrays.equals(row.getBytes(8), new byte[] {0, 1, (byte) 255}), "bytea");
                    check(Arrays.equals((Object[]) row.getArray(9).getArray(), new Integer[] {1, 2, null}), "int4[]");
                    equal(row.getString(10), null, "null");
                }
            }
        }
    }

    /** Portals that stay open from one Execute to the next, two at a time, with a write in between. */
    static void rowsFetchedInPortions(Connection connection) throws Exception {
        String table = table(connection, "portions", "id int");
        connection.setAutoCommit(false);
        try (PreparedStatement numbers = connection.prepareStatement("SELECT i FROM generate_series(1, 1000) AS i ORDER BY i");
                PreparedStatement backwards = connection.prepareStatement("SELECT i FROM generate_series(1000, 1, -1) AS i");
                PreparedStatement insert = connection.prepareStatement("INSERT INTO " + table + " VALUES (?)")) {
            for (int round = 0; round < 7; round++) {
                numbers.setFetchSize(37);
                backwards.setFetchSize(53);
                try (ResultSet up = numbers.executeQuery(); ResultSet down = backwards.executeQuery()) {
                    for (int expected = 1; expected <= 1000; expected++) {
                        check(up.next() && down.next(), "row " + expected);
                        equal(up.getInt(1), expected, "upwards");
                        equal(down.getInt(1), 1001 - expected, "downwards");
                        if (expected % 100 == 0) {
                            insert.setInt(1, expected);
                            insert.executeUpdate();
                        }
                    }
                    check(!up.next() && !down.next(), "no more rows");
                }
                connection.commit();
            }
        }
        equal(count(connection, table), 70L, "rows written in between");
        connection.commit();
    }

    static void batches(Connection connection) throws Exception {
        String table = table(connection, "batches", "id int, note text");
        for (boolean autoCommit : new boolean[] {true, false}) {
            connection.setAutoCommit(autoCommit);
            try (PreparedStatement insert = connection.prepareStatement("INSERT INTO " + table + " VALUES (?, ?)")) {
                for (int id = 0; id < 1000; id++) {
                    insert.setInt(1, id);
                    insert.setString(2, "x".repeat(id % 300));
                    insert.addBatch();
                }
                int[] counts = insert.executeBatch();
                equal(Arrays.stream(counts).sum(), 1000, "rows of the batch");
            }
            if (!autoCommit) {
                connection.commit();
            }
        }
        connection.setAutoCommit(true);
        equal(count(connection, table), 2000L, "rows");
    }

    static void batchesRewritten(Connection connection) throws Exception {
        String table = table(connection, "rewritten", "id int");
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO " + table + " VALUES (?)")) {
            for (int round = 0; round < 8; round++) {
                for (int id = 0; id < 500; id++) {
                    insert.setInt(1, id);
                    insert.addBatch();
                }
                insert.executeBatch();
                equal(count(connection, table), 500L * (round + 1), "rows");
            }
        }
    }

    static void batchWithAnError(Connection connection) throws Exception {
        String table = table(connection, "broken", "id int PRIMARY KEY");
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO " + table + " VALUES (?)")) {
            for (int id : new int[] {1, 2, 3, 2, 4, 5}) {
                insert.setInt(1, id);
                insert.addBatch();
            }
            SQLException error = raises("23505", "a key twice", insert::executeBatch);
            check(error instanceof BatchUpdateException, "the kind of error");
        }
        long kept = count(connection, table);
        check(kept == 0 || kept == 3, "all or what came before: " + kept);
        equal(one(connection, "SELECT 1"), 1, "the connection goes on");
    }

    static void generatedKeys(Connection connection) throws Exception {
        String table = table(connection, "generated", "id bigint GENERATED ALWAYS AS IDENTITY, note text");
        String sql = "INSERT INTO " + table + " (note) VALUES (?)";
        try (PreparedStatement insert = connection.prepareStatement(sql, Statement.RETURN_GENERATED_KEYS)) {
            for (long expected = 1; expected <= 12; expected++) {
                insert.setString(1, "note");
                insert.executeUpdate();
                try (ResultSet keys = insert.getGeneratedKeys()) {
                    check(keys.next(), "a key");
                    equal(keys.getLong(1), expected, "the key");
                }
            }
        }
    }

    static void savepoints(Connection connection) throws Exception {
        String table = table(connection, "savepoints", "id int PRIMARY KEY");
        connection.setAutoCommit(false);
        execute(connection, "INSERT INTO " + table + " VALUES (1)");
        Savepoint savepoint = connection.setSavepoint("kept");
        raises("23505", "a key twice", () -> execute(connection, "INSERT INTO " + table + " VALUES (1)"));
        raises("25P02", "the transaction has failed", () -> count(connection, table));
        connection.rollback(savepoint);
        execute(connection, "INSERT INTO " + table + " VALUES (2)");
        connection.releaseSavepoint(savepoint);
        connection.commit();
        equal(count(connection, table), 2L, "rows");
        execute(connection, "INSERT INTO " + table + " VALUES (3)");
        connection.rollback();
        equal(count(connection, table), 2L, "rows after a rollback");
        connection.commit();
    }

    /** The driver sets a savepoint ahead of each statement. */
    static void errorsUndoneOneByOne(Connection connection) throws Exception {
        String table = table(connection, "autosave", "id int PRIMARY KEY");
        connection.setAutoCommit(false);
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO " + table + " VALUES (?)")) {
            for (int id = 0; id < 20; id++) {
                insert.setInt(1, id);
                insert.executeUpdate();
                raises("23505", "a key twice", insert::executeUpdate);
                equal(count(connection, table), id + 1L, "rows");
            }
        }
        connection.commit();
        equal(count(connection, table), 20L, "rows");
        connection.commit();
    }

    static void isolationAndReadOnly(Connection connection) throws Exception {
        String table = table(connection, "isolation", "id int");
        execute(connection, "INSERT INTO " + table + " VALUES (1)");
        connection.setReadOnly(true);
        connection.setAutoCommit(false);
        equal(count(connection, table), 1L, "rows in a transaction that only reads");
        raises("25006", "a write in it", () -> execute(connection, "INSERT INTO " + table + " VALUES (2)"));
        connection.rollback();
        connection.setReadOnly(false);
        connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        equal(one(connection, "SHOW transaction_isolation"), "serializable", "isolation");
        execute(connection, "INSERT INTO " + table + " VALUES (2)");
        connection.commit();
        connection.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
        equal(count(connection, table), 2L, "rows");
        try (Connection other = connect()) {
            execute(other, "INSERT INTO " + table + " VALUES (3)");
        }
        equal(count(connection, table), 2L, "the same snapshot");
        connection.commit();
        connection.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
        equal(one(connection, "SHOW transaction_isolation"), "read committed", "isolation");
        connection.commit();
    }

    static void copyBothWays(Connection connection) throws Exception {
        String table = table(connection, "copied", "id int, note text");
        CopyManager copies = connection.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder rows = new StringBuilder();
        for (int id = 0; id < 20_000; id++) {
            rows.append(id).append("\tnote ").append(id).append('\n');
        }
        long copied = copies.copyIn("COPY " + table + " FROM STDIN", new StringReader(rows.toString()));
        equal(copied, 20_000L, "rows in");
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        equal(copies.copyOut("COPY (SELECT * FROM " + table + " ORDER BY id) TO STDOUT", out), 20_000L, "rows out");
        equal(out.toString(), rows.toString(), "what came out");
        raises("22P02", "a row that is none",
                () -> copies.copyIn("COPY " + table + " FROM STDIN", new StringReader("1\tgood\nbad\tbad\n")));
        equal(count(connection, table), 20_000L, "rows");
    }

    static void notifications(Connection connection) throws Exception {
        execute(connection, "LISTEN drivers_jdbc");
        PGConnection listener = connection.unwrap(PGConnection.class);
        try (Connection other = connect()) {
            for (int number = 0; number < 5; number++) {
                one(other, "SELECT pg_notify('drivers_jdbc', ?)", "number " + number);
            }
        }
        List<String> heard = new ArrayList<>();
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
        while (heard.size() < 5 && System.nanoTime() < deadline) {
            // It comes while nothing is asked.
            PGNotification[] some = listener.getNotifications(1000);
            for (PGNotification one : some == null ? new PGNotification[0] : some) {
                heard.add(one.getParameter());
            }
        }
        equal(heard, List.of("number 0", "number 1", "number 2", "number 3", "number 4"), "heard");
        execute(connection, "UNLISTEN *");
    }

    static void cancels(Connection connection) throws Exception {
        try (Statement slow = connection.createStatement()) {
            slow.setQueryTimeout(1);
            raises("57014", "a timeout", () -> slow.executeQuery("SELECT pg_sleep(50)"));
        }
        for (int round = 0; round < 5; round++) {
            try (Statement slow = connection.createStatement()) {
                Thread canceller = new Thread(() -> {
                    try {
                        Thread.sleep(200);
                        slow.cancel();
                    } catch (InterruptedException | SQLException error) {
                        throw new IllegalStateException(error);
                    }
                });
                canceller.start();
                raises("57014", "a cancel", () -> slow.executeQuery("SELECT pg_sleep(50)"));
                canceller.join();
            }
            equal(one(connection, "SELECT 1"), 1, "the next statement");
        }
    }

    /** By the protocol's function calls. */
    static void largeObjects(Connection connection) throws Exception {
        byte[] content = new byte[300_000];
        new java.util.Random(7).nextBytes(content);
        connection.setAutoCommit(false);
        LargeObjectManager manager = connection.unwrap(PGConnection.class).getLargeObjectAPI();
        long id = manager.createLO(LargeObjectManager.READWRITE);
        try (LargeObject object = manager.open(id, LargeObjectManager.WRITE)) {
            object.write(content);
        }
        connection.commit();
        try (LargeObject object = manager.open(id, LargeObjectManager.READ)) {
            check(Arrays.equals(object.read(content.length + 1), content), "what was written");
            object.seek(1000);
            equal(object.read(1)[0], content[1000], "one byte of it");
        }
        connection.commit();
        manager.delete(id);
        connection.commit();
        raises("42704", "it is gone", () -> manager.open(id, LargeObjectManager.READ));
        connection.rollback();
    }

    static void functionsAndCursors(Connection connection) throws Exception {
        try (CallableStatement call = connection.prepareCall("{ ? = call upper(?) }")) {
            call.registerOutParameter(1, Types.VARCHAR);
            call.setString(2, "quiet");
            call.execute();
            equal(call.getString(1), "QUIET", "what it gives");
        }
        execute(connection, "CREATE OR REPLACE FUNCTION drivers_jdbc_cursor() RETURNS refcursor LANGUAGE plpgsql AS "
                + "$$ DECLARE rows refcursor; BEGIN OPEN rows FOR SELECT generate_series(1, 10); RETURN rows; END $$");
        connection.setAutoCommit(false);
        try (CallableStatement call = connection.prepareCall("{ ? = call drivers_jdbc_cursor() }")) {
            call.registerOutParameter(1, Types.OTHER);
            call.execute();
            int seen = 0;
            try (ResultSet rows = (ResultSet) call.getObject(1)) {
                while (rows.next()) {
                    equal(rows.getInt(1), ++seen, "a row of the cursor");
                }
            }
            equal(seen, 10, "rows of the cursor");
        }
        connection.commit();
    }

    static void metadata(Connection connection) throws Exception {
        String table = table(connection, "described", "id int PRIMARY KEY, note varchar(20) NOT NULL DEFAULT 'none'");
        List<String> columns = new ArrayList<>();
        try (ResultSet rows = connection.getMetaData().getColumns(null, "public", table, "%")) {
            while (rows.next()) {
                columns.add(rows.getString("COLUMN_NAME") + " " + rows.getString("TYPE_NAME"));
            }
        }
        equal(columns, List.of("id int4", "note varchar"), "columns");
        try (ResultSet keys = connection.getMetaData().getPrimaryKeys(null, "public", table)) {
            check(keys.next(), "a primary key");
            equal(keys.getString("COLUMN_NAME"), "id", "the primary key");
        }
    }

    /** By now the server has the statement, and its result has another column than then. */
    static void changedTable(Connection connection) throws Exception {
        String table = table(connection, "changing", "id int");
        execute(connection, "INSERT INTO " + table + " VALUES (1)");
        try (PreparedStatement select = connection.prepareStatement("SELECT * FROM " + table)) {
            for (int columns = 1; columns < 6; columns++) {
                for (int round = 0; round < 7; round++) {
                    try (ResultSet rows = select.executeQuery()) {
                        check(rows.next(), "a row");
                        equal(rows.getMetaData().getColumnCount(), columns, "columns");
                    }
                }
                execute(connection, "ALTER TABLE " + table + " ADD COLUMN more_" + columns + " int");
            }
        }
    }

    static void searchPath(Connection connection) throws Exception {
        execute(connection, "CREATE SCHEMA IF NOT EXISTS drivers_jdbc_side");
        execute(connection, "DROP TABLE IF EXISTS drivers_jdbc_side.which");
        execute(connection, "CREATE TABLE drivers_jdbc_side.which AS SELECT 'side' AS place");
        execute(connection, "DROP TABLE IF EXISTS public.which");
        execute(connection, "CREATE TABLE public.which AS SELECT 'public' AS place");
        try (PreparedStatement select = connection.prepareStatement("SELECT place FROM which"); Connection other = connect()) {
            for (int round = 0; round < 20; round++) {
                connection.setSchema(round % 2 == 0 ? "drivers_jdbc_side" : "public");
                equal(one(select), round % 2 == 0 ? "side" : "public", "where it is");
                equal(one(other, "SELECT place FROM which"), "public", "where another's is");
            }
        }
    }

    static void manyStatements(Connection connection) throws Exception {
        for (int round = 0; round < 2; round++) {
            for (int number = 0; number < 300; number++) {
                equal(one(connection, "SELECT " + number + " + ?::int", round), number + round, "its own answer");
            }
        }
    }

    static void severalStatements(Connection connection) throws Exception {
        String table = table(connection, "several", "id int");
        try (Statement statement = connection.createStatement()) {
            boolean rows = statement.execute("INSERT INTO " + table + " VALUES (1); SELECT count(*) FROM " + table
                    + "; UPDATE " + table + " SET id = 2; SELECT id FROM " + table);
            check(!rows, "the first gives no rows");
            equal(statement.getUpdateCount(), 1, "inserted");
            check(statement.getMoreResults(), "the second gives rows");
            try (ResultSet counted = statement.getResultSet()) {
                check(counted.next(), "a row");
                equal(counted.getLong(1), 1L, "its own insert");
            }
            check(!statement.getMoreResults(), "the third gives none");
            equal(statement.getUpdateCount(), 1, "updated");
            check(statement.getMoreResults(), "the fourth gives rows");
            try (ResultSet seen = statement.getResultSet()) {
                check(seen.next(), "a row");
                equal(seen.getInt(1), 2, "its own update");
            }
        }
        PSQLException error = (PSQLException) raises("22012", "an error in the middle",
                () -> execute(connection, "INSERT INTO " + table + " VALUES (3); SELECT 1 / 0; INSERT INTO " + table + " VALUES (4)"));
        check(error.getServerErrorMessage() != null, "the server's own words");
        equal(count(connection, table), 1L, "nothing of it is kept");
    }
}
