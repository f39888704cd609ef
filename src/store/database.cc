#include "store/database.h"

#include <SQLiteCpp/Backup.h>
#include <SQLiteCpp/SQLiteCpp.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <exception>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "store/sealed_pages.h"

namespace efedllm {
namespace {

constexpr int kBusyTimeoutMillis = 5000;
constexpr size_t kMaxKeptStatements = 64;

using StatementPtr = std::unique_ptr<SQLite::Statement>;

absl::Status SqliteError(const std::string& path, const std::exception& error,
                         int system_error = 0) {
  const std::string what = absl::StrCat("database ", path, ": ", error.what());
  const auto* sqlite = dynamic_cast<const SQLite::Exception*>(&error);
  const int code = sqlite == nullptr ? SQLITE_ERROR : sqlite->getErrorCode() & 0xff;
  const bool no_space = system_error == ENOSPC || system_error == EDQUOT;
  if (code == SQLITE_FULL || (code == SQLITE_IOERR && no_space)) {
    return absl::ResourceExhaustedError(
        absl::StrCat(what, "; the disk is full. Nothing was written; free space and go on"));
  }
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) return absl::DataLossError(what);
  if (sqlite != nullptr && sqlite->getExtendedErrorCode() == SQLITE_IOERR_DATA) {
    return absl::DataLossError(absl::StrCat(what, ": a page does not match its seal"));
  }
  return absl::InternalError(what);
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

void ReadRow(SQLite::Statement& statement, SqlRow& row) {
  row.resize(statement.getColumnCount());
  for (size_t i = 0; i < row.size(); ++i) row[i] = Value(statement.getColumn(static_cast<int>(i)));
}

}  // namespace

// A connection, and the statements that it has compiled.
struct Database::Connection {
  Connection(const std::string& path, int flags, const char* file_system)
      : path(path),
        database(FileUri(path, flags), flags | SQLite::OPEN_URI, kBusyTimeoutMillis,
                 file_system == nullptr ? "" : file_system) {}

  static std::string FileUri(const std::string& path, int flags) {
    if ((flags & SQLite::OPEN_MEMORY) != 0) return path;
    std::string uri = "file:";
    for (const char c : path) {
      const bool plain = absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '/' ||
                         c == '.' || c == '-' || c == '_';
      if (plain) {
        uri += c;
      } else {
        absl::StrAppendFormat(&uri, "%%%02x", static_cast<unsigned char>(c));
      }
    }
    const bool copy =
        (flags & SQLite::OPEN_READWRITE) == 0 && access((path + "-wal").c_str(), F_OK) != 0;
    return copy ? uri + "?immutable=1" : uri;
  }

  absl::Status Error(const std::exception& error) {
    return SqliteError(path, error, sqlite3_system_errno(database.getHandle()));
  }

  // A statement to be run once, with its values; Keep it afterwards.
  StatementPtr Prepare(const std::string& sql, const SqlRow& values) {
    StatementPtr statement;
    const auto kept = statements.find(sql);
    if (kept == statements.end()) {
      statement = std::make_unique<SQLite::Statement>(database, sql);
    } else {
      statement = std::move(kept->second);
      statements.erase(kept);
    }
    Bind(*statement, values);
    return statement;
  }

  void Keep(StatementPtr statement) {
    statement->tryReset();
    if (statements.size() >= kMaxKeptStatements) return;
    statement->clearBindings();
    const std::string sql = statement->getQuery();
    statements[sql] = std::move(statement);
  }

  const std::string path;
  SQLite::Database database;
  absl::flat_hash_map<std::string, StatementPtr> statements;
};

class Database::Rows final : public Cursor {
 public:
  Rows(Connection& connection, StatementPtr statement)
      : connection_(connection), statement_(std::move(statement)) {}
  ~Rows() override { connection_.Keep(std::move(statement_)); }

  absl::StatusOr<bool> Next(SqlRow& row) override {
    try {
      if (!statement_->executeStep()) return false;
      ReadRow(*statement_, row);
      return true;
    } catch (const std::exception& error) {
      return connection_.Error(error);
    }
  }

 private:
  Connection& connection_;
  StatementPtr statement_;
};

class Database::OpenTransaction final : public Transaction {
 public:
  explicit OpenTransaction(Connection& connection) : connection_(connection) {}

  absl::StatusOr<std::vector<SqlRow>> Query(const std::string& sql, const SqlRow& values) override {
    ASSIGN_OR_RETURN(const std::unique_ptr<Cursor> cursor, Read(sql, values));
    std::vector<SqlRow> rows;
    for (SqlRow row;;) {
      ASSIGN_OR_RETURN(const bool found, cursor->Next(row));
      if (!found) return rows;
      rows.push_back(std::move(row));
    }
  }

  absl::StatusOr<std::unique_ptr<Cursor>> Read(const std::string& sql,
                                               const SqlRow& values) override {
    try {
      return std::make_unique<Rows>(connection_, connection_.Prepare(sql, values));
    } catch (const std::exception& error) {
      return connection_.Error(error);
    }
  }

  absl::StatusOr<int64_t> Execute(const std::string& sql, const SqlRow& values) override {
    StatementPtr statement;
    const absl::Cleanup keep = [&] {
      if (statement != nullptr) connection_.Keep(std::move(statement));
    };
    try {
      statement = connection_.Prepare(sql, values);
      return int64_t{statement->exec()};
    } catch (const std::exception& error) {
      return connection_.Error(error);
    }
  }

 private:
  Connection& connection_;
};

int64_t SqlInt(const SqlValue& value) {
  const auto* integer = std::get_if<int64_t>(&value);
  return integer == nullptr ? 0 : *integer;
}

std::string SqlText(const SqlValue& value) {
  const auto* text = std::get_if<std::string>(&value);
  return text == nullptr ? std::string() : *text;
}

Database::Database(std::unique_ptr<Connection> connection) : connection_(std::move(connection)) {}
// Closing does this too, but not while another connection is open, of a reader for example.
Database::~Database() {
  absl::MutexLock lock(&mu_);
  connection_->statements.clear();
  sqlite3_wal_checkpoint_v2(connection_->database.getHandle(), nullptr, SQLITE_CHECKPOINT_PASSIVE,
                            nullptr, nullptr);
}

namespace {

const char* FileSystem(const DatabaseOptions& options) {
  return options.sealed ? SealedFileSystem() : nullptr;
}

// Pages of a file that has none yet get room for a seal.
void ReserveSeals(SQLite::Database& database) {
  int bytes = static_cast<int>(kSealBytes);
  sqlite3_file_control(database.getHandle(), "main", SQLITE_FCNTL_RESERVE_BYTES, &bytes);
  database.exec(absl::StrCat("PRAGMA page_size = ", kSealedPageBytes));
}

absl::Status Migrate(SQLite::Database& database, const std::string& path,
                     const std::vector<std::string>& migrations) {
  const int64_t version = database.execAndGet("PRAGMA user_version").getInt64();
  if (version < 0 || version > static_cast<int64_t>(migrations.size())) {
    return absl::FailedPreconditionError(
        absl::StrCat("database ", path, " has schema version ", version, " and this program knows ",
                     migrations.size(), "; it was written by a newer eFedLLM: update this one"));
  }
  for (size_t next = static_cast<size_t>(version); next < migrations.size(); ++next) {
    SQLite::Transaction transaction(database);
    database.exec(migrations[next]);
    database.exec(absl::StrCat("PRAGMA user_version = ", next + 1));
    transaction.commit();
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const std::string& path,
                                                         const std::vector<std::string>& migrations,
                                                         const DatabaseOptions& options) {
  RETURN_IF_ERROR(MakePrivateFile(path));
  try {
    auto connection = std::make_unique<Connection>(
        path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, FileSystem(options));
    SQLite::Database& database = connection->database;
    if (options.sealed) ReserveSeals(database);
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON");
    RETURN_IF_ERROR(Migrate(database, path, migrations));
    return std::unique_ptr<Database>(new Database(std::move(connection)));
  } catch (const std::exception& error) {
    return SqliteError(path, error);
  }
}

absl::StatusOr<std::unique_ptr<Database>> Database::OpenForReading(const std::string& path,
                                                                   const DatabaseOptions& options) {
  if (access(path.c_str(), R_OK) != 0) return ErrnoStatus(errno, "open", path);
  try {
    auto connection =
        std::make_unique<Connection>(path, SQLite::OPEN_READONLY, FileSystem(options));
    connection->database.exec(
        "PRAGMA query_only = ON; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON");
    return std::unique_ptr<Database>(new Database(std::move(connection)));
  } catch (const std::exception& error) {
    return SqliteError(path, error);
  }
}

absl::StatusOr<std::unique_ptr<Database>> Database::InMemory(
    const std::vector<std::string>& migrations) {
  try {
    auto connection = std::make_unique<Connection>(
        ":memory:", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE | SQLite::OPEN_MEMORY, nullptr);
    RETURN_IF_ERROR(Migrate(connection->database, connection->path, migrations));
    return std::unique_ptr<Database>(new Database(std::move(connection)));
  } catch (const std::exception& error) {
    return SqliteError(":memory:", error);
  }
}

absl::Status Database::Transact(absl::FunctionRef<absl::Status(Transaction&)> body) {
  absl::MutexLock lock(&mu_);
  try {
    SQLite::Transaction transaction(connection_->database);
    OpenTransaction statements(*connection_);
    RETURN_IF_ERROR(body(statements));
    transaction.commit();
    return absl::OkStatus();
  } catch (const std::exception& error) {
    return connection_->Error(error);
  }
}

absl::Status Database::Backup(const std::string& path) {
  if (access(path.c_str(), F_OK) == 0) {
    return absl::AlreadyExistsError(absl::StrCat(path, " is there already"));
  }
  const std::string unfinished = path + ".part";
  unlink(unfinished.c_str());
  absl::Cleanup remove = [&] { unlink(unfinished.c_str()); };
  RETURN_IF_ERROR(MakePrivateFile(unfinished));
  absl::MutexLock lock(&mu_);
  try {
    // The same file system: seals are written as the original's are.
    sqlite3_vfs* file_system = nullptr;
    sqlite3_file_control(connection_->database.getHandle(), "main", SQLITE_FCNTL_VFS_POINTER,
                         static_cast<void*>(&file_system));
    Connection copy(unfinished, SQLite::OPEN_READWRITE, file_system->zName);
    SQLite::Backup backup(copy.database, connection_->database);
    if (backup.executeStep(-1) != SQLITE_DONE) {
      return absl::UnavailableError(absl::StrCat("database ", connection_->path, " is locked"));
    }
  } catch (const std::exception& error) {
    return SqliteError(unfinished, error, errno);
  }
  if (rename(unfinished.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, "rename", path);
  std::move(remove).Cancel();
  return SyncFolderOf(path);
}

absl::Status Database::Rewrite() {
  absl::MutexLock lock(&mu_);
  try {
    connection_->statements.clear();
    connection_->database.exec("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
    return absl::OkStatus();
  } catch (const std::exception& error) {
    return connection_->Error(error);
  }
}

}  // namespace efedllm
