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

// Statements of a transaction that is under way. Only inside of Database::Transact.
class Transaction {
 public:
  virtual ~Transaction() = default;
  // All rows of a query; for tables of bounded size. values are bound to the ?s in order.
  virtual absl::StatusOr<std::vector<SqlRow>> Query(const std::string& sql,
                                                    const SqlRow& values = {}) = 0;
  // Returns the number of rows changed.
  virtual absl::StatusOr<int64_t> Execute(const std::string& sql, const SqlRow& values = {}) = 0;
};

// Thread-safe: one transaction at a time.
class Database {
 public:
  // Opens or makes the file (0600, write-ahead log) and brings its schema up to date: migrations[i]
  // takes version i to i + 1 (PRAGMA user_version), in one transaction each. Migrations are only
  // ever appended. FailedPrecondition: written by a newer version of this program; DataLoss: the
  // file is damaged; Internal: what SQLite says.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const std::string& path,
                                                        const std::vector<std::string>& migrations);
  ~Database();

  // Runs body in a transaction: committed if it returns OK, undone else.
  absl::Status Transact(absl::FunctionRef<absl::Status(Transaction&)> body)
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Connection;
  explicit Database(std::unique_ptr<Connection> connection);

  absl::Mutex mu_;
  const std::unique_ptr<Connection> connection_ ABSL_PT_GUARDED_BY(mu_);
};

}  // namespace efedllm

#endif  // EFEDLLM_STORE_DATABASE_H_
