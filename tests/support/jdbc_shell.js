// A JDBC shell for tests, run by Rhino: a request a line on stdin, its answer as a line of JSON on stdout.
//   {"connect": url, "user": name, "password": text}
//   {"query": sql, "parameters": [..], "max_rows": n, "seconds": n}   parameters make it a prepared statement
//   {"update": sql}   {"tables": schema}   {"columns": [schema, table]}   {"schemas": true}
// A cell is [Java class, text], or null.

var input = new java.io.BufferedReader(new java.io.InputStreamReader(java.lang.System["in"], "UTF-8"));
var connection = null;
var line;
while ((line = input.readLine()) !== null) {
    java.lang.System.out.println(JSON.stringify(answer(JSON.parse(String(line)))));
}

function answer(request) {
    try {
        if (request.connect) {
            if (connection !== null) connection.close();
            connection = java.sql.DriverManager.getConnection(request.connect, request.user, request.password);
            var about = connection.getMetaData();
            return {product: String(about.getDatabaseProductName()), version: String(about.getDatabaseProductVersion())};
        }
        if (request.tables) return read(connection.getMetaData().getTables(null, request.tables, "%", null));
        if (request.columns) {
            return read(connection.getMetaData().getColumns(null, request.columns[0], request.columns[1], "%"));
        }
        if (request.schemas) return read(connection.getMetaData().getSchemas());
        if (request.update) return {updated: connection.createStatement().executeUpdate(request.update)};
        return query(request);
    } catch (error) {
        var thrown = error.javaException;
        if (!thrown) throw error;
        return {error: words(thrown), code: thrown instanceof java.sql.SQLException ? thrown.getErrorCode() : 0};
    }
}

function words(thrown) {
    var cause = thrown.getCause();
    return String(thrown.getMessage()) + (cause === null ? "" : ": " + words(cause));
}

function query(request) {
    var prepared = request.parameters !== undefined;
    var statement = prepared ? connection.prepareStatement(request.query) : connection.createStatement();
    if (request.max_rows) statement.setMaxRows(request.max_rows);
    if (request.seconds) statement.setQueryTimeout(request.seconds);
    if (prepared) request.parameters.forEach(function (value, index) { statement.setObject(index + 1, value); });
    var found = read(prepared ? statement.executeQuery() : statement.executeQuery(request.query));
    statement.close();
    return found;
}

function read(result) {
    var about = result.getMetaData(), names = [], types = [], rows = [];
    for (var column = 1; column <= about.getColumnCount(); column++) {
        names.push(String(about.getColumnLabel(column)));
        types.push(String(about.getColumnTypeName(column)));
    }
    while (result.next()) {
        rows.push(names.map(function (_, index) { return cell(result.getObject(index + 1)); }));
    }
    return {names: names, types: types, rows: rows};
}

function cell(value) {
    if (value === null) return null;
    if (value instanceof java.sql.Array) return ["array", String(java.util.Arrays.toString(value.getArray()))];
    return [String(value.getClass().getName()), String(value.toString())];
}
