// Looks on while this process talks to the managers: node:http tells diagnostics_channel when an
// answer arrives. So a deployment can be taken apart from outside, without a word in the product.
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { ClientRequest, IncomingMessage } from 'node:http'

const channel = 'http.client.response.finish'

/** Calls `listener` at each answer, until the returned function is called. */
export function onAnswer(
  listener: (method: string, path: string, status: number) => void,
): () => void {
  const onMessage = (message: unknown): void => {
    const { request, response } = message as { request: ClientRequest; response: IncomingMessage }
    listener(request.method, request.path, response.statusCode ?? 0)
  }
  subscribe(channel, onMessage)
  return () => void unsubscribe(channel, onMessage)
}
