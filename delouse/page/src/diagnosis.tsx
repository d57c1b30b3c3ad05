// What is wrong, worst first, with its evidence; then what is worth a look.
import { useMemo } from "preact/hooks";
import { count, duration, upper, words } from "./format";
import { ofFinding } from "./graph";
import type { Diagnosis, Finding, Look, Observation } from "./model";
import { Picture } from "./picture";
import { Notes, Sentence, Tasks } from "./text";

/** How bad a diagnosis is, for colours. */
export function grade(diagnosis?: Diagnosis): string {
  if (!diagnosis) return "unknown";
  if (diagnosis.findings.some(({ severity }) => severity === "certain")) return "bad";
  if (diagnosis.findings.length > 0) return "suspected";
  if (diagnosis.observations.length > 0 || (diagnosis.not_covered ?? []).length > 0) return "look";
  return "good";
}

export function DiagnosisView({ look, busy }: { look: Look; busy: string }) {
  const { diagnosis } = look;
  if (!diagnosis) {
    return <p class={`verdict unknown`} role="status">{busy ? `${upper(busy)} …` : "There is no diagnosis."}</p>;
  }
  const { findings, observations } = diagnosis;
  const seen = observations.filter(({ kind }) => kind !== "not_judged");
  return (
    <>
      <p class={`verdict ${grade(diagnosis)}`} role="status"><Sentence text={upper(diagnosis.summary)} /></p>
      {findings.map((finding, at) => <FindingCard finding={finding} isVerdict={at === 0} />)}
      {seen.length > 0 && (
        <section>
          <h2>Worth a look</h2>
          <ul class="observations">{seen.map((one) => <ObservationLine one={one} />)}</ul>
        </section>
      )}
      <NotJudgedList diagnosis={diagnosis} />
      <ScopeText diagnosis={diagnosis} />
      <Notes notes={diagnosis.capture.notes} />
    </>
  );
}

/** `isVerdict`: its summary is above already. */
function FindingCard({ finding, isVerdict }: { finding: Finding; isVerdict: boolean }) {
  const graph = useMemo(() => ofFinding(finding), [finding]);
  return (
    <article class={`finding ${finding.severity}`}>
      <header>
        <h2>{upper(words(finding.kind))}</h2>
        <span class={`badge ${finding.severity}`}>{finding.severity}</span>
        <span class="place">{finding.count > 0 && count(finding.count, "task")}</span>
        <Tasks ids={finding.tasks} count={finding.count} />
      </header>
      {!isVerdict && <p><Sentence text={finding.summary} /></p>}
      {graph.arrows.length > 0 && <Picture graph={graph} title={`What waits for what: ${words(finding.kind)}`} />}
      <h3>Evidence</h3>
      <ul>{finding.evidence.map((line) => <li><Sentence text={line} /></li>)}</ul>
      {finding.remedy && (
        <>
          <h3>Suggested fix</h3>
          <p><Sentence text={finding.remedy} /></p>
        </>
      )}
    </article>
  );
}

function ObservationLine({ one }: { one: Observation }) {
  return (
    <li>
      <span class="badge look">{words(one.kind)}</span> <Sentence text={one.summary} />{" "}
      {one.tasks.length > 0 && <Tasks ids={one.tasks} count={Math.max(one.count, one.tasks.length)} />}
    </li>
  );
}

function NotJudgedList({ diagnosis: { not_judged, not_judged_more } }: { diagnosis: Diagnosis }) {
  const total = not_judged.reduce((sum, one) => sum + one.count, not_judged_more);
  if (total === 0) return null;
  return (
    <details>
      <summary>Not judged: {count(total, "task")}</summary>
      <ul>
        {not_judged.map((one) => (
          <li>
            <Tasks ids={one.tasks} count={one.count} /> {one.place && <>in <code>{one.place}</code></>}
            {one.leaf && <>, at <code>{one.leaf}</code></>}: <Sentence text={one.reason} />
          </li>
        ))}
      </ul>
    </details>
  );
}

function ScopeText({ diagnosis: { scope } }: { diagnosis: Diagnosis }) {
  const files = scope.open_files === null ? "" : `, ${count(scope.open_files, "open file")}`;
  const samples = scope.samples < 2 ? "one sample" : `${scope.samples} samples in ${duration(scope.interval_ms)}`;
  const growth = scope.growth_over_ms === null ? "growth was not measured" : `growth over ${duration(scope.growth_over_ms)}`;
  return (
    <p class="place">
      Covers {count(scope.tasks, "task")}, {count(scope.threads, "thread")}, {count(scope.resources, "resource")} with
      waiters{files}; {samples}; {growth}.
    </p>
  );
}
