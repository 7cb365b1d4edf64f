// A command's connection to the resource manager.
import { Client } from '../client/client.js'
import { RfaasError } from '../errors.js'
import { CommandError } from './failure.js'
import type { Target } from './options.js'

export async function connect({ url, keyFile, ca, allowPlaintext }: Target): Promise<Client> {
  try {
    return await Client.connect(url, {
      ...(keyFile === undefined ? {} : { keyFile }),
      ...(ca === undefined ? {} : { ca }),
      ...(allowPlaintext === undefined ? {} : { allowPlaintext }),
    })
  } catch (cause) {
    if (!(cause instanceof RfaasError) || cause.code !== 'ERR_RFAAS_UNAVAILABLE') throw cause
    throw new CommandError(`there is no resource manager at ${url}: ${reason(cause)}`, {
      hint: "'rfaas up' starts a cluster on this machine; --url or RFAAS_URL names another one",
      cause,
    })
  }
}

/** The shortest true sentence. */
function reason(error: RfaasError): string {
  let cause: unknown = error.cause
  while (cause instanceof Error && cause.cause !== undefined) cause = cause.cause
  return cause instanceof Error && cause.message !== '' ? cause.message : error.message
}
