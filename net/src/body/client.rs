//! What a client asks about its own subscription.

use super::fastjson::body;
use super::heartbeat::SubscriptionData;

body! {
    /// CHECK_CLIENT_CONFIG (46): may this subscription be made here? Sent for expressions that are not tags.
    pub struct CheckClientRequestBody {
        "clientId" => client_id: String,
        "group" => group: String,
        "namespace" => namespace: Option<String>,
        "subscriptionData" => subscription_data: Option<SubscriptionData>,
    }
}
