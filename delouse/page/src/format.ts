// Numbers, times and names as text, written as the server writes them.
import type { Capture, Waiting } from "./model";

export const thousands = (n: number) => n.toLocaleString("en-US");

export const count = (n: number, noun: string) => `${thousands(n)} ${noun}${n === 1 ? "" : "s"}`;

export function duration(ms: number): string {
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.floor(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

export const since = (waiting?: Waiting | null) =>
  waiting ? `${waiting.exact ? "" : "≥ "}${duration(waiting.at_least_ms)}` : "";

export const clock = (at: number) => new Date(at).toLocaleTimeString("en-GB");

/** With the date, where that is not today's. */
export function moment(at: number): string {
  const date = new Date(at);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? clock(at) : `${date.toLocaleDateString("en-GB")} ${clock(at)}`;
}

export const pause = (capture: Capture) =>
  capture.pause_us > 0 ? `stood still for ${duration(capture.pause_us / 1000)}` : "was not stopped";

export const taskName = (id: number) => (id === 0 ? "the main future" : `task ${id}`);

export const words = (name: string) => name.replaceAll("_", " ");

export const upper = (text: string) => text.slice(0, 1).toUpperCase() + text.slice(1);
