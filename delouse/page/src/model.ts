// The answers of the server, as far as the page uses them. The OpenAPI document at /?format=json has all fields.

export interface Capture {
  pause_us: number;
  held_us: number;
  total_us: number;
  consistent: boolean;
  notes: string[];
}

export interface Waiting {
  at_least_ms: number;
  exact: boolean;
}

export interface WaitsOn {
  kind: string;
  address: string | null;
}

export interface Task {
  id: number;
  kind: string;
  runtime: string | null;
  state: string | null;
  thread?: number;
  waiting?: Waiting;
  spawned_at: string | null;
  waits_on: WaitsOn[];
}

export interface TaskGroup {
  key: string;
  count: number;
  kind: string;
  runtime: string | null;
  state: string | null;
  waiting?: Waiting;
  spawned_at?: string;
  place: string | null;
  waits_on: string[];
  threads?: number[];
  tasks: number[];
  text: string;
}

export interface TasksAnswer {
  stacktrace: string;
  capture: Capture;
  total: number;
  matching: number;
  groups?: TaskGroup[];
  more_groups?: number;
  tasks: Task[];
}

export interface Location {
  function: string;
  file?: string;
  line?: number;
}

export interface Resource {
  id: string;
  kind: string;
  address: string | null;
}

export interface ThreadAt {
  tid: number;
  name?: string;
  place?: Location;
}

/** A holder, as evidence has it. */
export interface Party {
  task: number | null;
  thread?: ThreadAt;
  variable?: string;
  place: Location | null;
  handle?: string;
  certain: boolean;
}

/** A fact; which fields it has depends on its kind. */
export interface Fact {
  kind: string;
  task?: number;
  place?: Location | null;
  resource?: Resource;
  holders?: Party[];
  more_holders?: number;
  thread?: ThreadAt | number;
}

export interface Finding {
  kind: string;
  severity: "certain" | "suspected";
  summary: string;
  tasks: number[];
  count: number;
  evidence: string[];
  facts: Fact[];
  remedy?: string;
}

export interface Observation {
  kind: string;
  summary: string;
  tasks: number[];
  count: number;
}

export interface NotJudged {
  tasks: number[];
  count: number;
  place: string | null;
  leaf: string | null;
  reason: string;
}

export interface Scope {
  tasks: number;
  threads: number;
  resources: number;
  waits: number;
  open_files: number | null;
  samples: number;
  interval_ms: number;
  growth_over_ms: number | null;
}

export interface Diagnosis {
  summary: string;
  diagnosis: string;
  findings: Finding[];
  observations: Observation[];
  not_judged: NotJudged[];
  not_judged_more: number;
  not_covered?: string[];
  scope: Scope;
  capture: Capture;
}

/** A holder, as the wait graph has it. */
export interface Holder {
  task: number | null;
  thread?: number;
  variable: string;
  place: string | null;
  handle: string;
  certain: boolean;
}

export interface Edge {
  waiter: number | null;
  thread?: number;
  place: string | null;
  resource: Resource;
  leaf?: string;
  outside?: WaitsOn;
  holders: Holder[];
  more_holders?: number;
  held_elsewhere: boolean;
}

export interface WaitsAnswer {
  tasks: number;
  edges: Edge[];
  findings: Finding[];
  capture: Capture;
}

export interface Thread {
  tid: number;
  name: string;
  state: string | null;
  cpu_us: number | null;
  runs_task: number | null;
}

export interface ThreadGroup {
  count: number;
  role: string;
  activity: string;
  doing: string;
  threads: Thread[];
  text: string;
}

export interface ThreadsAnswer {
  stacktrace: string;
  capture: Capture;
  groups?: ThreadGroup[];
}

/** All that one look at the program has shown. */
export interface Look {
  /** Milliseconds since 1970. */
  at: number;
  tasks: TasksAnswer;
  /** Missing while the program is being diagnosed. */
  diagnosis?: Diagnosis;
}
