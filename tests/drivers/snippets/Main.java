// What a request does with the snippet, over JDBC.

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;

class Main {
    // SNIPPET

    public static void main(String[] arguments) throws SQLException {
        String writer = arguments[0], reader = arguments[1], key = arguments[2];
        String token;
        try (Connection connection = DriverManager.getConnection(writer);
                PreparedStatement insert = connection.prepareStatement("INSERT INTO visits VALUES (?)")) {
            present(connection, "");
            insert.setString(1, key);
            insert.executeUpdate();
            token = current(connection);
        }
        System.out.println("token " + token);
        System.out.println("without " + visits(reader, key, ""));
        System.out.println("with " + visits(reader, key, token));
        System.out.println("refused " + visits(reader, key, "no token; it's refused"));
    }

    static int visits(String url, String key, String token) throws SQLException {
        try (Connection connection = DriverManager.getConnection(url);
                PreparedStatement count = connection.prepareStatement("SELECT count(*) FROM visits WHERE key = ?")) {
            present(connection, token);
            count.setString(1, key);
            try (ResultSet result = count.executeQuery()) {
                result.next();
                return result.getInt(1);
            }
        }
    }
}
