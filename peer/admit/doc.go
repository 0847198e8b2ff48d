// Package admit lets a node into a cluster: join tokens, and the handshake in which a newcomer shows that it holds one
// and a member shows that it belongs to the cluster which the token names.
//
// # Token
//
// A token ([Token]) is 16 bytes that name the cluster and a 16-byte secret, from which an Ed25519 key follows. The records
// hold the public key with expiry, issuer and use; whoever reads them cannot join by them.
//
// # Handshake
//
// On a stream of fabric.JoinProtocol, which a stranger may open, each line one frame:
//
//	newcomer -> member   hello: versions, cluster prefix, token's public key
//	newcomer <- member   challenge: version, nonce                   | refusal
//	newcomer -> member   response: facts, signature by the token's key over
//	                     (label, cluster prefix, member ID, newcomer ID, nonce, facts)
//	newcomer <- member   welcome: proofs of both memberships, peers  | refusal
//
// Both IDs are those that the connection has proven. So a recorded handshake is of no use with another key, to another
// member, or twice; and a false member that is shown a response can do nothing with it elsewhere. The newcomer believes
// the welcome only when the member's place chains to the cluster of the token ([crdt.VerifyAdmission]).
//
// # One-time tokens
//
// No two members can agree at once that a token is unused, so a one-time token is redeemed by its issuer alone, where
// transactions are serial. Another member passes the response on to the issuer ([ForwardProtocol]), which verifies it
// itself: a member that lies about a newcomer has no signature to show.
//
// A member runs a [Server]; a newcomer calls [Join].
package admit
