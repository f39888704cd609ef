#include "store/database.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr int kBusyTimeoutMillis = 5000;
constexpr int kSqliteCorrupt = 11;       // SQLITE_CORRUPT
constexpr int kSqliteNotADatabase = 26;  // SQLITE_NOTADB

absl::Status SqliteError(const std::string& path, const std::exception& error) {
  const auto* sqlite = dynamic_cast<const SQLite::Exception*>(&error);
  if (sqlite != nullptr &&
      (sqlite->getErrorCode() == kSqliteCorrupt || sqlite->getErrorCode() == kSqliteNotADatabase)) {
    return absl::DataLossError(error.what());
  }
  return absl::InternalError(absl::StrCat("database ", path, ": ", error.what()));
}

void Bind(SQLite::Statement& statement, const SqlRow& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    const int index = static_cast<int>(i) + 1;
    if (const auto* integer = std::get_if<int64_t>(&values[i])) {
      statement.bind(index, *integer);
    } else if (const auto* number = std::get_if<double>(&values[i])) {
      statement.bind(index, *number);
    } else if (const auto* bytes = std::get_if<std::string>(&values[i])) {
      statement.bind(index, *bytes);
    } else {
      statement.bind(index);
    }
  }
}

SqlValue Value(const SQLite::Column& column) {
  if (column.isInteger()) return int64_t{column.getInt64()};
  if (column.isFloat()) return column.getDouble();
  if (column.isNull()) return std::monostate();
  return column.getString();
}

// SQLite would make the file with the process's umask; its contents are for the owner alone.
absl::Status MakePrivateFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoStatus(errno, "open", path);
  close(fd);
  return absl::OkStatus();
}

class OpenTransaction final : public Transaction {
 public:
  OpenTransaction(SQLite::Database& database, const std::string& path)
      : database_(database), path_(path) {}

  absl::StatusOr<std::vector<SqlRow>> Query(const std::string& sql, const SqlRow& values) override {
    try {
      SQLite::Statement statement(database_, sql);
      Bind(statement, values);
      std::vector<SqlRow> rows;
      while (statement.executeStep()) {
        SqlRow& row = rows.emplace_back();
        for (int i = 0; i < statement.getColumnCount(); ++i) {
          row.push_back(Value(statement.getColumn(i)));
        }
      }
      return rows;
    } catch (const std::exception& error) {
      return SqliteError(path_, error);
    }
  }

  absl::StatusOr<int64_t> Execute(const std::string& sql, const SqlRow& values) override {
    try {
      SQLite::Statement statement(database_, sql);
      Bind(statement, values);
      return int64_t{statement.exec()};
    } catch (const std::exception& error) {
      return SqliteError(path_, error);
    }
  }

 private:
  SQLite::Database& database_;
  const std::string& path_;
};

}  // namespace

int64_t SqlInt(const SqlValue& value) {
  const auto* integer = std::get_if<int64_t>(&value);
  return integer == nullptr ? 0 : *integer;
}

std::string SqlText(const SqlValue& value) {
  const auto* text = std::get_if<std::string>(&value);
  return text == nullptr ? std::string() : *text;
}

struct Database::Connection {
  explicit Connection(const std::string& path)
      : path(path),
        database(path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, kBusyTimeoutMillis) {}

  const std::string path;
  SQLite::Database database;
};

Database::Database(std::unique_ptr<Connection> connection) : connection_(std::move(connection)) {}
Database::~Database() = default;

absl::StatusOr<std::unique_ptr<Database>> Database::Open(
    const std::string& path, const std::vector<std::string>& migrations) {
  RETURN_IF_ERROR(MakePrivateFile(path));
  try {
    auto connection = std::make_unique<Connection>(path);
    SQLite::Database& database = connection->database;
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON");
    const int64_t version = database.execAndGet("PRAGMA user_version").getInt64();
    if (version < 0 || version > static_cast<int64_t>(migrations.size())) {
      return absl::FailedPreconditionError(absl::StrCat(
          "database ", path, " has schema version ", version, " and this program knows ",
          migrations.size(), "; it was written by a newer eFedLLM: update this one"));
    }
    for (size_t next = static_cast<size_t>(version); next < migrations.size(); ++next) {
      SQLite::Transaction transaction(database);
      database.exec(migrations[next]);
      database.exec(absl::StrCat("PRAGMA user_version = ", next + 1));
      transaction.commit();
    }
    return std::unique_ptr<Database>(new Database(std::move(connection)));
  } catch (const std::exception& error) {
    return SqliteError(path, error);
  }
}

absl::Status Database::Transact(absl::FunctionRef<absl::Status(Transaction&)> body) {
  absl::MutexLock lock(&mu_);
  try {
    SQLite::Transaction transaction(connection_->database);
    OpenTransaction statements(connection_->database, connection_->path);
    RETURN_IF_ERROR(body(statements));
    transaction.commit();
    return absl::OkStatus();
  } catch (const std::exception& error) {
    return SqliteError(connection_->path, error);
  }
}

}  // namespace efedllm
