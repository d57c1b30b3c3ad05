# What differs from that which the cases state, one line for each difference. Like `complaints` of tests/tests/wait_kinds.rs.

# All frames of a stack.
def frames: .. | objects | select(has("function") and has("children"));

# Whether a value has all fields that `expected` has.
def includes($expected):
    . as $value
    | if ($expected | type) == "object" then
        all($expected | keys[]; . as $name | ($value | type) == "object" and ($value[$name] | includes($expected[$name])))
      else $value == $expected end;

$answer[0] as $listing
| ($listing.tasks | map({key: (.id | tostring), value: .}) | from_entries) as $tasks
| ([$diagnosis[0].findings[] | select(.kind == "deadlock" and (.tasks | length) == 2) | .tasks[] | tostring]) as $deadlocked
| ([$diagnosis[0].findings[].tasks[] | tostring]) as $named
| $cases[0].cases[]
| . as $case
| $tasks[.id] as $task
| if $task == null then "\(.name) (task \(.id)) is missing"
  else
    (if any($task.stack | frames; .origin == "user" and .line == $case.line and ((.file // "") | endswith($case.file))) then empty
     else "\(.name) is not at \(.file):\(.line) but at \([$task.stack | frames | "\(.function) \(.file):\(.line)"])" end),
    (if any($task.waits_on[]; includes($case.resource)) then empty
     else "\(.name) waits not for \(.resource) but for \($task.waits_on)" end),
    (if ([$task.stack | frames | .waits // 0] | add // 0) == ($task.waits_on | length) then empty
     else "\(.name) has waits that no frame has: \($task)" end),
    (if $task.stack | tostring | test("_env#|\\{async_|\\$|\\{impl|/macros/|/async_await/") then
        "\(.name) has names or lines that are in no source: \($task.stack)" else empty end),
    (if (.name | startswith("shadowed_")) and (any($deadlocked[]; . == $case.id) | not) then
        "the deadlock of \(.name) (task \(.id)) was not found" else empty end),
    (if (.name | startswith("healthy_")) and any($named[]; . == $case.id) then
        "\(.name) (task \(.id)) waits for a timer only" else empty end)
  end
