// Looks on while this process talks to the managers: what is asked over the control plane is published
// on a channel of Node's diagnostics.
import { subscribe, unsubscribe } from 'node:diagnostics_channel'

const channel = 'rfaas:answer'

/** Calls `listener` at each answer, until the returned function is called. */
export function onAnswer(
  listener: (method: string, path: string, status: number) => void,
): () => void {
  const onMessage = (message: unknown): void => {
    const { method, path, status } = message as { method: string; path: string; status: number }
    listener(method, path, status)
  }
  subscribe(channel, onMessage)
  return () => void unsubscribe(channel, onMessage)
}
