// One SQLite file: opened with its migrations, asked with bound values, in transactions. What the
// library throws ends here.
#ifndef EFEDLLM_STORE_DATABASE_H_
#define EFEDLLM_STORE_DATABASE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace efedllm {

// A column: NULL, an integer, a float, or bytes (SQL text and blobs alike).
using SqlValue = std::variant<std::monostate, int64_t, double, std::string>;
using SqlRow = std::vector<SqlValue>;

// The integer or the text of a column; 0 or "" where it has another type.
int64_t SqlInt(const SqlValue& value);
std::string SqlText(const SqlValue& value);

// Rows one by one, for tables of any size. Only inside of the transaction that opened it.
class Cursor {
 public:
  virtual ~Cursor() = default;
  // Puts the next row into row (whose memory is used again); false: there is none.
  virtual absl::StatusOr<bool> Next(SqlRow& row) = 0;
};

// Statements of a transaction that is under way. Only inside of Database::Transact.
class Transaction {
 public:
  virtual ~Transaction() = default;
  // All rows of a query; for tables of bounded size. values are bound to the ?s in order.
  virtual absl::StatusOr<std::vector<SqlRow>> Query(const std::string& sql,
                                                    const SqlRow& values = {}) = 0;
  // The same, one at a time.
  virtual absl::StatusOr<std::unique_ptr<Cursor>> Read(const std::string& sql,
                                                       const SqlRow& values = {}) = 0;
  // Returns the number of rows changed.
  virtual absl::StatusOr<int64_t> Execute(const std::string& sql, const SqlRow& values = {}) = 0;
};

struct DatabaseOptions {
  // Every page carries a seal (store/sealed_pages.h), and reading one that is damaged is DataLoss.
  // As the file was made.
  bool sealed = false;
};

// Thread-safe: one transaction at a time. Errors of all calls: ResourceExhausted: the disk is full
// (nothing of the transaction was written, and the next one may succeed); DataLoss: the file is
// damaged; Internal: what SQLite says.
class Database {
 public:
  // Opens or makes the file (0600, write-ahead log) and brings its schema up to date: migrations[i]
  // takes version i to i + 1 (PRAGMA user_version), in one transaction each. Migrations are only
  // ever appended. What a transaction wrote lasts when it returns. FailedPrecondition: written by a
  // newer version of this program, or not made with these options.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const std::string& path,
                                                        const std::vector<std::string>& migrations,
                                                        const DatabaseOptions& options = {});
  // Opens a file for reading, beside whoever writes it: neither waits for the other, and each
  // transaction sees the file as it was when it began. A file without a log beside it is taken for
  // one that nobody writes (a copy). Trusts nothing that the file says of itself. NotFound.
  static absl::StatusOr<std::unique_ptr<Database>> OpenForReading(
      const std::string& path, const DatabaseOptions& options = {});
  // Nowhere but in memory.
  static absl::StatusOr<std::unique_ptr<Database>> InMemory(
      const std::vector<std::string>& migrations);
  ~Database();

  // Runs body in a transaction: committed if it returns OK, undone else.
  absl::Status Transact(absl::FunctionRef<absl::Status(Transaction&)> body)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Copies what is committed now to a new file (0600), which is there in full or not at all, while
  // others read and write; only this object is busy. AlreadyExists: path is there.
  absl::Status Backup(const std::string& path) ABSL_LOCKS_EXCLUDED(mu_);

  // Writes every page anew: needs the file's size in free space. Seals all of them.
  absl::Status Rewrite() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Connection;
  class Rows;
  class OpenTransaction;
  explicit Database(std::unique_ptr<Connection> connection);

  absl::Mutex mu_;
  const std::unique_ptr<Connection> connection_ ABSL_PT_GUARDED_BY(mu_);
};

}  // namespace efedllm

#endif  // EFEDLLM_STORE_DATABASE_H_
